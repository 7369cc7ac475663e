"""The layout of an adapter's file, if libraries have changed it: recognised from the names alone.

Two things changed. transformers 5 (with PEFT 0.19 and later) holds the experts of a layer in one parameter;
before, each expert was a separate module. It also uses other names in memory for parts of some models. Most
adapters are the same in both layouts, and have no entry here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.core.lazy_pattern import lazy_pattern

EXPERTS_EACH = "experts_each"
EXPERTS_FUSED = "experts_fused"
NAMES_4 = "names_of_transformers_4"
NAMES_5 = "names_of_transformers_5"

TITLES: Mapping[str, str] = {
    EXPERTS_EACH: "separate experts (before PEFT 0.19 and transformers 5)",
    EXPERTS_FUSED: "fused experts (PEFT 0.17 and later, transformers 5)",
    NAMES_4: "names of transformers before 4.52",
    NAMES_5: "names of transformers 5",
}

SPELLINGS: tuple[tuple[str, str], ...] = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.vision_model.", "vision_model."),
    ("model.audio_tower.", "audio_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.vision_embed_tokens.", "vision_embed_tokens."),
)
"""Name prefixes in vision-language models: in memory since transformers 4.52, and before (and on disk)."""

_SEPARATE = lazy_pattern(r"(?:.*\.)?experts\.\d+\..+")
_FUSED = lazy_pattern(r"(?:.*\.)?experts(?:\.base_layer)*")
_OLD = tuple(old for new, old in SPELLINGS)
_NEW = ("model.language_model.", "model.vision_tower.", "model.multi_modal_projector.", "model.audio_tower.")


def detect_layouts(paths: Iterable[str]) -> tuple[str, ...]:
    """The layouts of an adapter's module paths, sorted; empty if they are the same in all layouts."""
    found = set()
    for path in paths:
        if _SEPARATE.fullmatch(path):
            found.add(EXPERTS_EACH)
        elif _FUSED.fullmatch(path):
            found.add(EXPERTS_FUSED)
        name = f"{path}."
        if name.startswith(_OLD) or (".block_sparse_moe.experts." in name and _SEPARATE.fullmatch(path)):
            found.add(NAMES_4)
        elif name.startswith(_NEW):
            found.add(NAMES_5)
    return tuple(sorted(found))
