"""Which copy of a base a merge uses, where one was quantised: the dequantised one, or the original.

A QLoRA adapter was trained against the rounded weights of a quantised copy. Merged into those, the result is
what was trained; merged into the original, it differs by the rounding, and starts from the better weights.
Both are right for somebody, so it is asked and never guessed, and the answer is kept with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from adaptry.bases.fingerprinting.quantised_copies import is_packed
from adaptry.bases.quantised import LogicalView
from adaptry.bases.quantised.name_hints import parse_quantisation_hint
from adaptry.compute.merging.fitting import WeightedAdapter
from adaptry.compute.recipes.merge import BaseCopyKind, Dtype
from adaptry.core.errors import CheckFailed, Unsupported

_DTYPES: Mapping[str, Dtype] = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class BaseCopy(BaseModel):
    """The copy of the base that is merged into, and why that one, as a sentence."""

    model_config = ConfigDict(frozen=True)

    kind: BaseCopyKind
    reason: str


def choose_copy(
    view: LogicalView, inputs: Sequence[WeightedAdapter], requested: BaseCopyKind | None, found: str = ""
) -> tuple[BaseCopy | None, list[str]]:
    """The copy to merge into, and what is to be told besides; None where nothing is quantised. `found` says
    how this base was found to be the original of the one that was named, where it was.

    Raises `CheckFailed` where more than one could be meant and `requested` does not say which, or says one
    that is not here; `Unsupported` for a base whose weights cannot be dequantised exactly.
    """
    folder = view.checkpoint.folder
    if view.packed:
        return _of_quantised(view, requested), []
    if written := view.checkpoint.config.get("quantization_config"):
        method = written.get("quant_method", "unknown") if isinstance(written, dict) else "unknown"
        raise Unsupported(
            f"{folder} is quantised ({method}) by its config.json, and none of its weights is packed in a way"
            " known here: merge into the unquantised base; if its weights are plain after all, take"
            " quantization_config out of the config"
        )
    trained = [(entry.label, why) for entry in inputs if (why := _why_quantised(entry))]
    if found and not trained:
        return BaseCopy(kind="original", reason=f"{found}, as --base-copy original asks"), []
    if not trained:
        unneeded = f"--base-copy {requested} changes nothing: no base here is known to be quantised"
        return None, [unneeded] if requested else []
    label, why = trained[0]
    if requested == "original":
        reason = (
            f"{label} was trained on a quantised copy ({why}) and is merged into the original, as --base-copy"
            " original asks: the result differs from what was trained by the rounding of that copy"
        )
        return BaseCopy(kind="original", reason=reason), [found] if found else []
    if requested == "dequantised":
        raise CheckFailed(
            f"--base-copy dequantised needs the quantised copy that {label} was trained on ({why}), and"
            f" {folder} is not quantised: give the copy with --base, or say --base-copy original"
        )
    raise CheckFailed(
        f"{label} was trained on a quantised copy ({why}), and {folder} is not quantised. Say --base-copy"
        " original to merge into it all the same, or give the quantised copy with --base and say --base-copy"
        " dequantised for exactly what was trained"
    )


def dtype_of_int8(view: LogicalView, dtype: Dtype | None) -> str:
    """The dtype of eight-bit weights: as asked, else the config's. Raises `CheckFailed` if neither tells."""
    known = dtype or _dtype_of_config(view)
    if known is None and any(packed.four_bit is None for packed in view.packed.values()):
        raise CheckFailed(
            f"{view.checkpoint.folder} does not say which dtype its eight-bit weights had:"
            " say it with --dtype"
        )
    return known or "F32"


def dtype_notes(view: LogicalView, dtype: Dtype | None) -> list[str]:
    """A note if four-bit weights were quantised from another dtype than the config tells loaders to use."""
    written = _dtype_of_config(view)
    found = {packed.four_bit.dtype for packed in view.packed.values() if packed.four_bit}
    if dtype or written is None or found <= {written}:
        return []
    return [
        f"four-bit weights are written as {' and '.join(sorted(found))}, from which they were quantised, and"
        f" config.json says {written}: --dtype makes all weights one dtype"
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
            f"{folder} is quantised ({method}), and --base-copy original needs the model that it was"
            " quantised from: give that with --base"
        )
    if odd := next((packed for packed in view.packed.values() if not packed.is_bitsandbytes), None):
        raise Unsupported(
            f"{folder} is quantised ({odd.title}), which is not dequantised here: serve the adapter unmerged,"
            " or merge into the original (--base ORIGINAL --base-copy original) and quantise the result"
        )
    if requested is None:
        raise CheckFailed(
            f"{folder} is quantised ({method}): say --base-copy dequantised to merge into its dequantised"
            " weights, which is what a QLoRA adapter was trained on (the result is not quantised), or"
            " --base-copy original to merge into the model that it was quantised from"
        )
    reason = (
        f"{folder} is quantised ({method}) and was dequantised as bitsandbytes does it, as --base-copy"
        " dequantised asks: the result is not quantised,"
        f" and its weights come of {view.method} codes, not of the original"
    )
    return BaseCopy(kind="dequantised", reason=reason)


def _why_quantised(entry: WeightedAdapter) -> str | None:
    """What tells that an adapter was trained on a quantised copy; its base by content goes before a name."""
    if entry.base is not None:
        if not is_packed(entry.base):
            return None
        return f"its base {entry.base.id.brief} is {entry.base.facts.get('quantization', 'quantised')}"
    name = entry.adapter.config.base_name
    word = parse_quantisation_hint(name)
    return f"its config names {name}" if word else None
