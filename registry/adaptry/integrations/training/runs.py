"""Training runs in a registry: their checkpoints, each a draft on its own branch, `RUN.step-N`.

A checkpoint's metrics are in its commit's message, since registry metrics belong to versions. Dropping a
checkpoint drops its branch; its commit keeps its id.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from adaptry.adapters.adapter import Adapter
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, parse_alias
from adaptry.operations.base_recognition import BaseSource, RecognisedBase
from adaptry.operations.transfer.drafts import push_draft
from adaptry.registry.commit_info import CommitInfo, CommitNote
from adaptry.registry.interface import Registry

_BRANCH = re.compile(r"(?P<run>.+)\.step-(?P<step>\d+)")
_MAX_RUN_LENGTH = 48


@dataclass(frozen=True, slots=True)
class TrainingCheckpoint:
    """An adapter at a step of a run, with its metrics. `ref` is its name in the registry."""

    name: AdapterName
    run: str
    step: int
    digest: Digest
    metrics: Mapping[str, float]

    @property
    def branch(self) -> str:
        return branch_name(self.run, self.step)

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.branch}"


def new_run_name() -> str:
    """A name for a run that begins now: `run-20261126-101502`."""
    return f"run-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def parse_run_name(text: str) -> str:
    """The name, if it is valid. Raises `InvalidRef` for a name that is not allowed in a ref, `Invalid` for
    one that is too long.
    """
    if len(text) > _MAX_RUN_LENGTH:
        raise Invalid(
            f"a run's name has at most {_MAX_RUN_LENGTH} characters, and {text[:20]}… has {len(text)}"
        )
    return parse_alias(text)


def branch_name(run: str, step: int) -> str:
    return f"{run}.step-{step}"


def push_checkpoint(
    registry: Registry,
    adapter: Adapter,
    name: AdapterName,
    run: str,
    step: int,
    metrics: Mapping[str, float],
    *,
    base: RecognisedBase | BaseSource | None = None,
    parents: tuple[Digest, ...] = (),
    provenance: Mapping[str, str] | None = None,
) -> TrainingCheckpoint:
    """Pushes a checkpoint. Raises the errors of `transfer.drafts.push_draft`; a repeated step moves the
    branch if the files changed.
    """
    kept = {metric: float(value) for metric, value in metrics.items() if math.isfinite(value)}
    note = CommitNote(title=f"{run}, step {step}", message=json.dumps({"metrics": kept}, sort_keys=True))
    commit = push_draft(
        registry,
        adapter,
        name,
        branch_name(run, step),
        note,
        base=base,
        parents=parents,
        provenance=provenance,
    )
    return TrainingCheckpoint(name, run, step, commit.digest, kept)


def checkpoints(
    registry: Registry, name: AdapterName | str, run: str | None = None
) -> tuple[TrainingCheckpoint, ...]:
    """The checkpoints of one run or of all, by run and step. Raises `NotFound`."""
    name = AdapterName.parse(name) if isinstance(name, str) else name
    found = []
    for info in registry.commits.references(name):
        match = _BRANCH.fullmatch(info.name)
        if info.kind == "branch" and match and run in (None, match["run"]):
            commit = registry.commits.get(name, info.name)
            found.append(
                TrainingCheckpoint(name, match["run"], int(match["step"]), commit.digest, _metrics_in(commit))
            )
    return tuple(sorted(found, key=lambda each: (each.run, each.step)))


def _metrics_in(commit: CommitInfo) -> Mapping[str, float]:
    """The metrics in a commit's message. Anyone may commit to a branch, so the message may be anything."""
    try:
        metrics = json.loads(commit.message)["metrics"]
        return {str(metric): float(value) for metric, value in metrics.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return {}
