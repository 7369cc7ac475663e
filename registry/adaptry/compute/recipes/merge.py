"""The recipe of a merge: adapters, weights, options of the result. Its JSON is the wire format."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from adaptry.core.errors import Invalid

Dtype = Literal["F32", "F16", "BF16"]
Rounding = Literal["float32", "peft"]
"""`once`: once, from a float32 sum. `peft`: like PEFT, after each adapter, in the dtype of the loaded
model."""
BaseCopyKind = Literal["original", "dequantised"]
"""The copies of a base that a merge can use where one of them is quantised."""
DTYPE_NAMES: dict[str, Dtype] = {
    "float32": "F32", "fp32": "F32", "f32": "F32",
    "float16": "F16", "fp16": "F16", "f16": "F16", "half": "F16",
    "bfloat16": "BF16", "bf16": "BF16",
}  # fmt: skip


class RecipeInput(BaseModel):
    """One adapter of a merge, as the user named it, and its weight."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    source: str
    weight: float = Field(default=1.0, allow_inf_nan=False)


class MergeRecipe(BaseModel):
    """A merge into base weights: W + Σ weight · scale · B·A, in float32, rounded once.

    With a `method` other than `linear`, the method's result replaces the sum; it has `parameters` and a
    `seed`. `dtype` None keeps each tensor's dtype. `max_shard_size` (bytes) None keeps the base's division
    into files. `other_base` allows a base that has the right shapes but is not the one that an input was
    trained on. `resize_vocab` allows an input whose embeddings have more rows than the base's. `base_copy`
    selects a copy of the base if it, or the base that an input was trained on, is quantised. `rounding` (of a
    sum) is omitted from the recipe's JSON if it is the default.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    base: str
    inputs: tuple[RecipeInput, ...] = Field(min_length=1, max_length=64)
    method: str = "linear"
    parameters: dict[str, Any] = {}  # checked against the method's table
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    dtype: Dtype | None = None
    max_shard_size: int | None = Field(default=None, ge=1 << 20)
    other_base: bool = False
    resize_vocab: bool = False
    base_copy: BaseCopyKind | None = None
    rounding: Rounding = "float32"

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if all(entry.weight == 0 for entry in self.inputs):
            raise ValueError("all weights are 0, so the result would be the base")
        if self.method == "linear" and self.parameters:
            raise ValueError(f"linear has no parameter {min(self.parameters)!r}: pass --method too")
        if self.method != "linear" and self.rounding == "peft":
            raise ValueError(f"rounding peft is only for sums; the result of {self.method} is rounded once")
        return self

    @model_serializer(mode="wrap")
    def _without_default_rounding(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """(`Any`: JSON.) Older recipes lack the field; omitting the default keeps their digests valid."""
        fields: dict[str, Any] = dump(self)
        if self.rounding == "float32":
            fields.pop("rounding", None)
        return fields


def parse_dtype(text: str) -> Dtype:
    """The safetensors name of `bfloat16`, `bf16`, …. Raises `Invalid`."""
    try:
        return DTYPE_NAMES[text.lower()]
    except KeyError:
        raise Invalid(f"unsupported dtype: {text[:40]!r} (float32, float16 or bfloat16)") from None
