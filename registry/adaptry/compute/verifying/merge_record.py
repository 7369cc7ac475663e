"""A merged checkpoint's `adaptry_merge.json`, and whether the inputs at hand are those it names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.record import RECORD_FILE, MergeRecord
from adaptry.core import strictjson
from adaptry.core.errors import CheckFailed, InvalidConfig, NotFound

_LIMITS = strictjson.JsonLimits(size=16 << 20, depth=16, nodes=500_000)


def read_merge_record(folder: Path) -> MergeRecord:
    """Raises `NotFound` where there is none, `InvalidConfig` where it is not what a merge wrote."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise NotFound(
            f"{folder} has no {RECORD_FILE} that says what it is made of: name it with --base and --adapter"
        )
    document = strictjson.loads(path.read_bytes(), _LIMITS, str(path))
    try:
        return MergeRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidConfig(
            f"{path} is not what a merge writes ({field}: {first['msg']}); say --base and --adapter instead"
        ) from None


def check_inputs(record: MergeRecord, inputs: Sequence[WeightedAdapter]) -> None:
    """Raises `CheckFailed` where an adapter is no longer the one that went in: names move, digests do not."""
    for named, entry in zip(record.inputs, inputs, strict=True):
        found = entry.adapter.weights_digest()
        if found != named.weights:
            raise CheckFailed(
                f"{entry.label} has the weights {found.brief}, and what was merged had {named.weights.brief}:"
                " it has changed since. Name the adapter that is meant with --base and --adapter"
            )


def check_base(record: MergeRecord, plan: MergePlan) -> None:
    """Raises `CheckFailed` where the base at hand is not the one that was merged into."""
    if plan.base != record.base:
        raise CheckFailed(
            f"{plan.checkpoint.folder} is the base {plan.base.brief}, and the merge was into"
            f" {record.base.brief}: name the one that is meant with --base and --adapter"
        )
