"""The output of a derived adapter: a folder on this machine, or a version in a registry."""

from __future__ import annotations

from pathlib import Path

from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter
from adaptry.core.display import format_count, format_share, html_facts, short_repr
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.derive import derive
from adaptry.operations.sources import RegistryOpener
from adaptry.registry.records import PushOptions, PushResult

_NO_OPTIONS = PushOptions()


@dataclass(frozen=True, slots=True, repr=False)
class DerivedResult:
    """A computed adapter: a description of its `location`, and its exactness.

    `pushed` is the version if it was pushed to a registry, `folder` the folder if it was written to one.
    `notes` are sentences for the user. `is_measured` is False if another program's arithmetic was reproduced,
    so that the loss is unknown.
    """

    location: str
    outcome: ComputeResult
    pushed: PushResult | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    is_measured: bool = True

    @property
    def exactness(self) -> str:
        """A sentence on the exactness of the result, and on modules that change nothing."""
        zero = self.outcome.zero_modules
        if not zero:
            return self._loss()
        modules = format_count(len(self.outcome.modules), "module")
        return f"{self._loss()}; the update is 0 in {len(zero):,} of {modules} (first: {zero[0]})"

    def _loss(self) -> str:
        if not self.is_measured:
            return "bit-equal to PEFT's result; the loss is not measured"
        if self.outcome.kept is None or self.outcome.error == 0.0:
            return "exact: nothing was approximated"
        kept, error = format_share(self.outcome.kept), format_share(self.outcome.error or 0.0)
        return f"energy kept {kept}, relative error {error}"

    def __repr__(self) -> str:
        return short_repr(self, self.location, self.exactness)

    def _repr_html_(self) -> str:
        version = self.pushed.version if self.pushed else None
        facts = [
            ("digest", str(version.digest) if version else ""),
            ("modules", str(len(self.outcome.modules))),
            ("exactness", self.exactness),
        ]
        return html_facts(self.location, facts, self.notes)


def write_result(
    connected: RegistryOpener,
    lazy_adapter: LazyAdapter,
    place: Path | AdapterName,
    *,
    options: PushOptions = _NO_OPTIONS,
    replace: bool = False,
    progress: Progress = no_progress,
) -> DerivedResult:
    """Computes the adapter and writes or pushes it to `place`. Raises what `write_adapter` and `derive`
    raise."""
    if isinstance(place, Path):
        outcome = write_adapter(lazy_adapter, place, replace=replace, progress=progress)
        return DerivedResult(
            str(place), outcome, folder=place, notes=lazy_adapter.notes, is_measured=lazy_adapter.is_measured
        )
    derived = derive(connected(), lazy_adapter, place, options=options, progress=progress)
    label = derived.pushed.version.label
    return DerivedResult(
        label, derived.outcome, derived.pushed, notes=lazy_adapter.notes, is_measured=lazy_adapter.is_measured
    )
