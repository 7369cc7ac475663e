"""Computes a lazy adapter and pushes it as a version that records its parents and recipe.

The result passes all checks of a push. The same recipe over the same parents, with the same libraries on the
same type of machine, gives the same bytes and therefore the same digest, so the existing version is returned.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from adaptry import __version__
from adaptry.adapters.adapter import open_dir
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter_into
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter
from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.base_recognition import RecognisedBase, declared_base
from adaptry.operations.lineage import KEPT_ENERGY
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult

_NO_OPTIONS = PushOptions()
_LIBRARIES = ("torch", "numpy")


@dataclass(frozen=True, slots=True)
class DeriveResult:
    """The new or existing version, and the figures of its modules."""

    pushed: PushResult
    outcome: ComputeResult


def derive(
    registry: Registry,
    lazy_adapter: LazyAdapter,
    name: AdapterName | str,
    *,
    options: PushOptions = _NO_OPTIONS,
    progress: Progress = no_progress,
) -> DeriveResult:
    """Pushes `lazy_adapter` as a version of `name`. If it is an approximation, the kept share of energy is
    logged as a metric.

    Raises the errors of writing and of `push`; a failure leaves nothing behind.
    """
    with tempfile.TemporaryDirectory(prefix="adaptry-") as folder:
        outcome = write_adapter_into(lazy_adapter, Path(folder), progress)
        adapter = open_dir(folder)
        pushed = push(
            registry,
            adapter,
            name,
            base=RecognisedBase(lazy_adapter.base) if lazy_adapter.base else declared_base(adapter),
            parents=parent_digests(lazy_adapter),
            recipe=lazy_adapter.recipe,
            provenance=library_versions(),
            options=_with_kept(options, outcome),
            progress=progress,
        )
    return DeriveResult(pushed, outcome)


def _with_kept(options: PushOptions, outcome: ComputeResult) -> PushOptions:
    if outcome.kept is None:
        return options
    return options.model_copy(update={"metrics": {KEPT_ENERGY: outcome.kept, **options.metrics}})


def parent_digests(lazy_adapter: LazyAdapter) -> tuple[Digest, ...]:
    """The parents that are revisions of a registry, each once, in order."""
    return tuple(
        dict.fromkeys(parent.revision for parent in lazy_adapter.parents if parent.revision is not None)
    )


def library_versions() -> dict[str, str]:
    """The versions of the computing libraries. They are recorded, since other versions may round
    differently.
    """
    found = {"adaptry": __version__}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found
