"""Resizes a LoRA to another rank: the closest LoRA of that rank, module by module, from its factors.

Singular values come from QR decompositions of the factors and an r×r problem, so no matrix of the weight's
size is formed. A module that already has the rank is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptry.compute.lazy_adapters.deltas import AdapterDeltas, open_adapter_deltas
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import LoraOptions, build_lora
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.lazy_adapters.whole_weights import choose_whole_weights
from adaptry.compute.recipes.merge import Dtype
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


class ResizeOptions(BaseModel):
    """`rank`: the maximum rank of each module; `energy`: the smallest ranks that keep this share of Σσ².
    `uniform`: one rank for all (`rank`, or the largest result; padded with zeros). `dtype`: that of the
    factors.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    dtype: Dtype = "F32"
    whole_weights: str | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if (self.rank is None) == (self.energy is None):
            raise ValueError("pass rank or energy, not both: each determines the rank")
        return self


def resize(parent: ParentAdapter, options: ResizeOptions) -> LazyAdapter:
    """Resizes `parent`. Raises `Unsupported`, `CheckFailed` unless it is exactly a sum of factors."""
    updates = open_adapter_deltas(parent)
    maker = _ResizedModules(updates, options)
    recipe = {
        key: value for key, value in options.model_dump(mode="json").items() if value not in (None, False)
    }
    return build_lora(
        [parent],
        {"operation": "resize", "inputs": [parent.recipe_entry()], **recipe},
        list(updates.modules),
        maker.compute,
        LoraOptions(options.dtype, (options.rank or 0) if options.uniform else None),
        choose_whole_weights([parent], options.whole_weights),
    )


@dataclass(frozen=True, slots=True)
class _ResizedModules:
    updates: AdapterDeltas
    options: ResizeOptions

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The site's float32 factors [..., out, k] and [..., k, in], and its figures. Raises
        `InvalidWeights`."""
        from adaptry.compute.conversion.truncation import RankLimit, truncate
        from adaptry.compute.lazy_adapters.rounding import measure_error, round_factors

        own = self.updates.factors(site)
        made = round_factors(
            truncate(own, RankLimit(self.options.rank, self.options.energy)), self.options.dtype
        )
        return made, measure_error(own, made)
