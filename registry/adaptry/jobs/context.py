"""The context in which a job step runs: the registry as its submitter, a scratch folder, a log and
progress.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress
from adaptry.core.refs import Ref

if TYPE_CHECKING:
    from adaptry.adapters.adapter import Adapter
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.registry.records import VersionInfo
    from adaptry.storage.local import LocalRegistry


@dataclass(slots=True)
class Processors:
    """The number of processors that a step may use now; it changes while other steps begin and end."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class JobContext:
    """`registry` accepts changes only while this attempt of the step is the current one. `previous_results`
    are the results of the earlier steps, by name. `remotes` are the other registries configured on the
    runner, name to address. (`Any`: JSON.)
    """

    registry: LocalRegistry
    previous_results: Mapping[str, Any]
    device: str
    scratch: Path
    remotes: Mapping[str, str]
    progress: Progress
    log: Callable[[str], None]
    processors: Processors = field(default_factory=Processors)

    def open_version(self, ref: Ref) -> tuple[VersionInfo, Adapter, BaseRecord | None]:
        """Opens a version: its record, its adapter, and its base record if the base is verified.

        Raises `Withdrawn` if the version is withdrawn, and the registry's errors.
        """
        from adaptry.operations.transfer import open_revision
        from adaptry.operations.verified_base import verified_base
        from adaptry.registry.state_warnings import require_usable, state_warning

        version = self.registry.versions.get(ref)
        require_usable(version)
        if warning := state_warning(version):
            self.log(f"warns: {warning}")
        exact = version.revision_ref
        adapter = open_revision(self.registry, exact, progress=self.progress)
        return version, adapter, verified_base(self.registry, version)
