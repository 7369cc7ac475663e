"""The recipe of a combination: adapters, weights, method. It is written as YAML or given as options."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from adaptry.compute.recipes.merge import Dtype, RecipeInput


class ModuleOverride(BaseModel):
    """Other settings for some modules.

    `match` is matched like a key of PEFT's `rank_pattern`; the first match applies. `weights` are keyed by
    the input's source. Omitted settings are the recipe's.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    match: str = Field(min_length=1, max_length=1024)
    method: str | None = None
    parameters: dict[str, Any] = {}  # checked against the method's table
    weights: dict[str, FiniteFloat] = {}
    rank: int | None = Field(default=None, ge=1)


class CombineRecipe(BaseModel):
    """Makes one adapter out of several.

    `rank` or `energy` (a share of Σσ², 0 to 1) truncates the result. Without either, the result is exact if
    the method is exact, and otherwise has the largest rank of the inputs. `uniform`: the same rank for every
    module (padded with zeros). `whole_weights`: the source whose saved modules, biases and
    token rows are copied, or `none`.
    `in_sequence`: each input was trained on top of the base and the inputs before it. `output`: a folder or a
    name in the registry.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    method: str = "linear"
    parameters: dict[str, Any] = {}  # checked against the method's table
    inputs: tuple[RecipeInput, ...] = Field(min_length=1, max_length=64)
    modules: tuple[ModuleOverride, ...] = Field(default=(), max_length=256)
    rank: int | None = Field(default=None, ge=1, le=1 << 16)
    energy: float | None = Field(default=None, gt=0, le=1)
    uniform: bool = False
    dtype: Dtype = "F32"
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    whole_weights: str | None = None
    other_base: bool = False
    in_sequence: bool = False
    output: str | None = None

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if all(entry.weight == 0 for entry in self.inputs):
            raise ValueError("all weights are 0, so the result would be empty")
        if self.rank is not None and self.energy is not None:
            raise ValueError("pass rank or energy, not both: each determines the rank")
        patterns = [override.match for override in self.modules]
        if twice := next((pattern for pattern in patterns if patterns.count(pattern) > 1), None):
            raise ValueError(f"modules has {twice[:80]!r} twice; remove one")
        sources = {entry.source for entry in self.inputs}
        named = {source for override in self.modules for source in override.weights}
        if strangers := sorted(named - sources):
            raise ValueError(
                f"weights of modules name {strangers[0][:80]!r}, which is not one of the inputs "
                f"({', '.join(sorted(sources))})"
            )
        return self
