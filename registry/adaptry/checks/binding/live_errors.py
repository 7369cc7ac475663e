"""Adapters that PEFT merges, but whose unmerged model raises an error when it is called.

PEFT's layer for a parameter takes the place of the parameter's module, whose other attributes some models
read. Its OFT layer treats an input with four dimensions as a convolution's, even in a linear module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adaptry.checks.binding.direct_weights import ends_with

_SAM = ("sam", "sam_hq", "sam_hq_vision_model", "sam_vision_model")
_READ_OWNERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("deit", "dinov3_vit", "ijepa", "vit", "vit_msn"), ("embeddings",)),
    **dict.fromkeys(_SAM, ("attn",)),
}
"""The ends of the paths of modules with parameters and attributes that the model reads, by type of model (or
of its part), as in transformers 5.24.
"""
_FOUR_DIMENSIONS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("convnext", "convnextv2"), ("pwconv1", "pwconv2")),
    **dict.fromkeys(_SAM, ("attn.proj", "attn.qkv", "mlp.lin1", "mlp.lin2")),
    "dinov3_convnext": ("pointwise_conv1", "pointwise_conv2"),
    "focalnet": ("projection_in", "projection_out"),
    "vitdet": ("attention.proj", "attention.qkv", "mlp.fc1", "mlp.fc2"),
}
"""The ends of the paths of linear modules whose input is an image, by type of model."""
_TOWER = "vision_encoder."
"""The part of SAM's models to which these names apply."""


def live_errors(
    types: Iterable[str], method: str, owners: Iterable[str], linear: Iterable[str]
) -> Iterator[tuple[str, list[str]]]:
    """A reason, as the end of a sentence, with the paths of its modules. `types` are those of the model and
    its parts, `owners` the modules of adapted parameters, `linear` the adapted linear modules.
    """
    types = list(types)
    if read := [path for path in owners if _is_listed(path, _READ_OWNERS, types)]:
        yield "the model reads attributes of it, which PEFT's layer for a parameter does not have", read
    rotated = linear if method == "oft" else ()
    if large := [path for path in rotated if _is_listed(path, _FOUR_DIMENSIONS, types)]:
        yield "its input has four dimensions, which PEFT's OFT mistakes for a convolution's", large


def _is_listed(path: str, table: Mapping[str, tuple[str, ...]], types: Iterable[str]) -> bool:
    return any(
        ends_with(path, table.get(kind, ())) and (kind not in _SAM or _TOWER in f".{path}") for kind in types
    )
