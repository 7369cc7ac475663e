"""A LoRA brought to another rank: the nearest one of that rank, module by module, through its factors alone.

Singular values come from QR of the factors and an r×r problem, so nothing of the weight's size is ever formed. A rank
that a module has already leaves its update as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptry.compute.lazy_adapters.deltas import Updates, updates_of
from adaptry.compute.lazy_adapters.lazy_adapter import Draft, Parent
from adaptry.compute.lazy_adapters.lora import Result, lora_draft
from adaptry.compute.lazy_adapters.sites import Site
from adaptry.compute.lazy_adapters.whole_weights import choose_whole_weights
from adaptry.compute.recipes.merge import Dtype

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors


class Goal(BaseModel):
    """`rank`: at most so many for each module; `energy`: the smallest ranks that keep this share of Σσ². `uniform`: one
    rank for all (that of `rank`, or the largest that comes out; zeros fill it). `dtype` of the factors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    dtype: Dtype = "F32"
    whole_weights: str | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.rank is None) == (self.energy is None):
            raise ValueError("say rank or energy, one of them: it decides the rank")
        return self


def resize(parent: Parent, goal: Goal) -> Draft:
    """`parent` within `goal`. Raises `Unsupported` and `Refused` for what is not exactly a sum of factors."""
    updates = updates_of(parent)
    maker = _Resized(updates, goal)
    recipe = {key: value for key, value in goal.model_dump(mode="json").items() if value not in (None, False)}
    return lora_draft(
        [parent],
        {"operation": "resize", "inputs": [parent.named()], **recipe},
        list(updates.modules),
        maker.compute,
        Result(goal.dtype, (goal.rank or 0) if goal.uniform else None),
        choose_whole_weights([parent], goal.whole_weights),
    )


@dataclass(frozen=True, slots=True)
class _Resized:
    updates: Updates
    goal: Goal

    def compute(self, site: Site) -> tuple[Factors, Mapping[str, float]]:
        """The site's factors, and its figures."""
        from adaptry.compute.converting.truncation import Limit, narrowed
        from adaptry.compute.lazy_adapters.rounding import measured, rounded

        own = self.updates.factors(site)
        made = rounded(narrowed(own, Limit(self.goal.rank, self.goal.energy)), self.goal.dtype)
        return made, measured(own, made)
