"""The options of a conversion."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adaptry.compute.recipes.merge import Dtype


class ConvertOptions(BaseModel):
    """`rank` or `energy` (a share of Σσ², 0 to 1) truncate each update; without them an update must already
    be low rank. `uniform`: one rank for all modules (padded with zeros). `dtype`: that of the factors; None:
    unchanged if the factors are unchanged, else F32. `drop_bias`: without the biases that the method changes.
    `whole_weights`: `none` leaves out saved modules, biases and token rows. `other_base`: allow a base
    other than the adapter's.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    dtype: Dtype | None = None
    drop_bias: bool = False
    whole_weights: str | None = None
    other_base: bool = False

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if self.rank is not None and self.energy is not None:
            raise ValueError("pass rank or energy, not both: each determines the rank")
        return self
