"""The options of an export: the base, as far as it is known, and limits for lossy steps."""

from __future__ import annotations

from collections.abc import Callable

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.exporting.oci.artifact import Descriptor
from adaptry.compute.recipes.merge import Dtype
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """`record`: the base's shapes and facts. `open_weights`: opens its files, only if values are needed.

    `rank` or `energy` truncate an adapter that is not a LoRA, or has too large a rank. `exact`: nothing may
    be lost. `max_error`: the largest relative error of the update (None: the default, see `error_bound`).
    `may_replace`: an existing adapter at the target may be replaced. `base_name`: the engines' name for the
    base. `part`: the part of a pipeline that PEFT's folder belongs to. `subject`: the base's manifest in an
    OCI registry, if the user has one.
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
        """The record. Raises `CheckFailed`, with a remedy, if the base is unknown; `what` is the operation
        that needs it.
        """
        if self.record is None:
            raise CheckFailed(
                f"{what} needs the base: pass the base with --base (a folder, of which only headers and"
                " config are read, or the name of a registered base)"
            )
        return self.record

    def require_weights(self, what: str) -> HfCheckpoint:
        """The base's files. Raises `CheckFailed` if they are not found, and the errors of opening them."""
        if self.open_weights is None:
            raise CheckFailed(
                f"{what} needs the base's weights: pass the base with --base (a folder, or the name of a"
                " base whose weights are on this machine)"
            )
        return self.open_weights()

    def conversion_base(self, *, reading: bool) -> ConversionBase | None:
        """The base for a conversion, with its files if values are needed and available."""
        if self.record is None:
            return None
        return ConversionBase(self.record, self.open_weights() if reading and self.open_weights else None)
