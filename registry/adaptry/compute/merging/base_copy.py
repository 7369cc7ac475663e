"""Chooses the copy of a base for a merge, if one is quantised: the dequantised copy or the original.

A QLoRA adapter was trained with the rounded weights of a quantised copy. A merge into these gives exactly the
trained model; a merge into the original differs by the rounding, but has better base weights. Both choices
have uses, so the user must choose, and the choice is stored with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from adaptry.bases.fingerprinting.quantised_copies import is_packed
from adaptry.bases.quantised import LogicalView
from adaptry.bases.quantised.name_hints import parse_quantisation_hint
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import BaseCopyKind, Dtype
from adaptry.core.errors import CheckFailed, Unsupported

_DTYPES: Mapping[str, Dtype] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class BaseCopy(BaseModel):
    """The copy of the base into which adapters are merged, and the reason as a sentence."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    kind: BaseCopyKind
    reason: str


def choose_copy(
    view: LogicalView,
    inputs: Sequence[WeightedAdapter],
    requested: BaseCopyKind | None,
    base_evidence: str = "",
) -> tuple[BaseCopy | None, list[str]]:
    """The copy to merge into (None if nothing is quantised), and notes. `base_evidence` is the evidence that
    this base is the original of the named one, if there is any.

    Raises `CheckFailed` if several copies are possible and `requested` does not choose one, or chooses a
    missing one, and `Unsupported` for a base whose weights cannot be dequantised exactly.
    """
    folder = view.checkpoint.folder
    if view.packed:
        return _of_quantised(view, requested), []
    if written := view.checkpoint.config.get("quantization_config"):
        method = written.get("quant_method", "unknown") if isinstance(written, dict) else "unknown"
        raise Unsupported(
            f"{folder} is quantised ({method}) by its config.json, but none of its weights is packed in a"
            " known"
            " way: merge into the unquantised base; if its weights are not quantised after all, remove"
            " quantization_config from the config"
        )
    trained = [(entry.label, why) for entry in inputs if (why := _why_quantised(entry))]
    if base_evidence and not trained:
        return BaseCopy(kind="original", reason=f"{base_evidence}, as --base-copy original requires"), []
    if not trained:
        unneeded = f"--base-copy {requested} has no effect: no base is known to be quantised"
        return None, [unneeded] if requested else []
    label, why = trained[0]
    if requested == "original":
        reason = (
            f"{label} was trained on a quantised copy ({why}) and is merged into the original, as --base-copy"
            " original requires: the result differs from the trained model by the rounding of that copy"
        )
        return BaseCopy(kind="original", reason=reason), [base_evidence] if base_evidence else []
    if requested == "dequantised":
        raise CheckFailed(
            f"--base-copy dequantised needs the quantised copy that {label} was trained on ({why}), and"
            f" {folder} is not quantised: pass the copy with --base, or pass --base-copy original"
        )
    raise CheckFailed(
        f"{label} was trained on a quantised copy ({why}), and {folder} is not quantised. Pass --base-copy"
        " original to merge into it anyway, or the quantised copy with --base and --base-copy"
        " dequantised for exactly the trained model"
    )


def dtype_of_int8(view: LogicalView, dtype: Dtype | None) -> str:
    """The dtype of eight-bit weights: as requested, else the config's. Raises `CheckFailed` if there is
    neither.
    """
    known = dtype or _dtype_of_config(view)
    if known is None and any(packed.four_bit is None for packed in view.packed.values()):
        raise CheckFailed(
            f"{view.checkpoint.folder} does not declare the original dtype of its eight-bit weights:"
            " pass --dtype"
        )
    return known or "F32"


def dtype_notes(view: LogicalView, dtype: Dtype | None) -> list[str]:
    """A note if four-bit weights were quantised from a dtype other than the config's."""
    written = _dtype_of_config(view)
    found = {packed.four_bit.dtype for packed in view.packed.values() if packed.four_bit}
    if dtype or written is None or found <= {written}:
        return []
    return [
        f"four-bit weights are written as {' and '.join(sorted(found))}, from which they were quantised, but"
        f" config.json has {written}: --dtype gives all weights one dtype"
    ]


def _dtype_of_config(view: LogicalView) -> Dtype | None:
    config = view.checkpoint.config
    parts = [
        config,
        *(config[key] for key in ("text_config", "llm_config") if isinstance(config.get(key), dict)),
    ]
    written = [_DTYPES.get(str(part.get(key))) for part in parts for key in ("dtype", "torch_dtype")]
    return next(filter(None, written), None)


def _of_quantised(view: LogicalView, requested: BaseCopyKind | None) -> BaseCopy:
    folder, method = view.checkpoint.folder, view.method
    if requested == "original":
        raise CheckFailed(
            f"{folder} is quantised ({method}), but --base-copy original needs the model that it was"
            " quantised from: pass that with --base"
        )
    if odd := next((packed for packed in view.packed.values() if not packed.is_bitsandbytes), None):
        raise Unsupported(
            f"{folder} is quantised ({odd.title}), which cannot be dequantised here: serve the adapter"
            " unmerged,"
            " or merge into the original (--base ORIGINAL --base-copy original) and quantise the result"
        )
    if requested is None:
        raise CheckFailed(
            f"{folder} is quantised ({method}): pass --base-copy dequantised to merge into its dequantised"
            " weights, with which a QLoRA adapter was trained (the result is not quantised), or"
            " --base-copy original to merge into the model that it was quantised from"
        )
    reason = (
        f"{folder} is quantised ({method}) and was dequantised like in bitsandbytes, as --base-copy"
        " dequantised requires: the result is not quantised,"
        f" and its weights come from {view.method} codes and not from the original"
    )
    return BaseCopy(kind="dequantised", reason=reason)


def _why_quantised(entry: WeightedAdapter) -> str | None:
    """The evidence that an adapter was trained on a quantised copy: the base's fingerprint first, then its
    name.
    """
    if entry.base is not None:
        if not is_packed(entry.base):
            return None
        return f"its base {entry.base.id.brief} is {entry.base.facts.get('quantization', 'quantised')}"
    name = entry.adapter.config.base_name
    word = parse_quantisation_hint(name)
    return f"its config names {name}" if word else None
