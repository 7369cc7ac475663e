"""The options of an extraction: a fixed rank or an energy, modules, dtype."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptry.compute.recipes.merge import Dtype


class ExtractRecipe(BaseModel):
    """Either `rank` or `energy` (the share of ‖Δ‖² that each module keeps). `modules` are path patterns;
    empty: all.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rank: int | None = Field(default=None, ge=1, le=65_536)
    energy: float | None = Field(default=None, gt=0.0, le=1.0)
    modules: tuple[str, ...] = ()
    dtype: Dtype = "F32"
    seed: int = Field(default=0, ge=0, lt=1 << 63)

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.rank is None) == (self.energy is None):
            raise ValueError("pass either a rank or an energy")
        return self
