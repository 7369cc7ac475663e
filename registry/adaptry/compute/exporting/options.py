"""What an export may use beside the adapter: its base, as far as known, and what to allow of lossy steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.converting.base_shapes import ConversionBase
from adaptry.compute.exporting.oci.artifact import Descriptor
from adaptry.compute.recipes.merge import Dtype
from adaptry.core.errors import CheckFailed
from adaptry.core.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """`record`: the base's shapes and facts; `open_weights`: its files, opened only if values are needed.

    `rank` or `energy` bring what is no LoRA, or too large a one, to a rank; `exact`: nothing may be lost;
    `max_error`: the largest relative error of the update, None for the default (`error_bound`);
    `may_replace`: an adapter that is at the place already is replaced. `base_name`: what engines call the
    base. `part`: of which part of a pipeline PEFT's folder is; `subject`: the manifest of the base in an OCI
    registry, where it is one's own.
    """

    record: BaseRecord | None = None
    open_weights: Callable[[], HfCheckpoint] | None = None
    base_name: str | None = None
    rank: int | None = None
    energy: float | None = None
    dtype: Dtype | None = None
    exact: bool = False
    max_error: float | None = None
    other_base: bool = False
    may_replace: bool = False
    part: str | None = None
    subject: Descriptor | None = None
    progress: Progress = no_progress

    def require_record(self, what: str) -> BaseRecord:
        """The record. Raises `CheckFailed` with what to do where there is none; `what` needs it."""
        if self.record is None:
            raise CheckFailed(
                f"{what} needs to know the base: say --base NAME (a registered one) or --base ./DIR, of which"
                " headers and config are read"
            )
        return self.record

    def require_weights(self, what: str) -> HfCheckpoint:
        """The base's files. Raises `CheckFailed` where they are nowhere, and what opening them raises."""
        if self.open_weights is None:
            raise CheckFailed(
                f"{what} needs the base's weights: say --base ./DIR,"
                " or the name of a base whose weights are here"
            )
        return self.open_weights()

    def conversion_base(self, *, reading: bool) -> ConversionBase | None:
        """The base under a conversion; its files where values are to be read and there are any."""
        if self.record is None:
            return None
        return ConversionBase(self.record, self.open_weights() if reading and self.open_weights else None)
