"""One file for a pipeline of diffusion models, told by its keys: diffusers' names, or kohya's flat ones.

The file's own name tells nothing: people upload kohya's under diffusers' name, and diffusers' under one of
their own.
"""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts import diffusers, kohya
from adaptry.adapters.layouts.layout import AdapterLayout
from adaptry.adapters.spec import Spec
from adaptry.core.errors import InvalidWeights


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """As the layout of these keys. Raises `InvalidWeights` if they are of neither, and as that layout."""
    if not any(kohya.is_key(name) or diffusers.is_key(name) for name in header.tensors):
        example = next(iter(header.tensors), "none")
        raise InvalidWeights(
            f"no tensor of the file is named as kohya's or diffusers' are ({example[:80]!a}), and there is no"
            " adapter_config.json: push the folder that the training wrote, or, for a part of a pipeline,"
            " save it with pipeline.save_lora_weights(DIR, unet_lora_layers=…), whose names say which part"
        )
    return _layout(header).config(data, header, read)


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """As the layout of these keys."""
    return _layout(header).describe(config, header)


def _layout(header: SafetensorsHeader) -> AdapterLayout:
    return kohya.LAYOUT if any(kohya.is_key(name) for name in header.tensors) else diffusers.LAYOUT


LAYOUT = AdapterLayout(config, describe)
