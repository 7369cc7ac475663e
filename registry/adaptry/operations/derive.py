"""The registry sink: a draft computed, and pushed as a version that names its parents and its recipe.

What is made passes every check that a push passes. The same recipe over the same parents, with the same
libraries on the same type of machine, gives the same bytes, so the same digest, so the version that is there
already.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from adaptry import __version__
from adaptry.adapters.adapter import open_dir
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter_into
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter
from adaptry.core.digest import Digest
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.lineage import KEPT
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult

_NO_OPTIONS = PushOptions()
_LIBRARIES = ("torch", "numpy")


@dataclass(frozen=True, slots=True)
class DeriveResult:
    """The version that was made (or was there), and what is to be told of its modules."""

    pushed: PushResult
    outcome: ComputeResult


def derive(
    registry: Registry,
    draft: LazyAdapter,
    name: AdapterName | str,
    *,
    options: PushOptions = _NO_OPTIONS,
    progress: Progress = no_progress,
) -> DeriveResult:
    """Makes `draft` a version of `name`; if something was approximated, the kept share of energy is a metric.

    Raises what `write` and `push` raise; nothing is left of a failure.
    """
    with tempfile.TemporaryDirectory(prefix="adaptry-") as folder:
        outcome = write_adapter_into(draft, Path(folder), progress)
        pushed = push(
            registry,
            open_dir(folder),
            name,
            base=draft.base,
            parents=parent_digests(draft),
            recipe=draft.recipe,
            provenance=library_versions(),
            options=_with_kept(options, outcome),
            progress=progress,
        )
    return DeriveResult(pushed, outcome)


def _with_kept(options: PushOptions, outcome: ComputeResult) -> PushOptions:
    if outcome.kept is None:
        return options
    return options.model_copy(update={"metrics": {KEPT: outcome.kept, **options.metrics}})


def parent_digests(draft: LazyAdapter) -> tuple[Digest, ...]:
    """The parents that a registry has, each once, in order."""
    return tuple(dict.fromkeys(parent.revision for parent in draft.parents if parent.revision is not None))


def library_versions() -> dict[str, str]:
    """What computes: its versions are part of what a result is, since other ones may round otherwise."""
    found = {"adaptry": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
