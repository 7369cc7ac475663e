"""One file for a pipeline of diffusion models, in diffusers' or kohya's layout, recognised by its keys.

The file's name does not distinguish the two: people upload kohya's files under diffusers' name, and
diffusers' files under names that they choose.
"""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import ReadAt, SafetensorsHeader
from adaptry.adapters.layouts import diffusers, kohya
from adaptry.adapters.layouts.layout import AdapterLayout
from adaptry.adapters.spec import Spec
from adaptry.core.errors import InvalidWeights


def config(data: bytes, header: SafetensorsHeader, read: ReadAt) -> AdapterConfig:
    """The config according to the layout of the keys. Raises `InvalidWeights` if the keys match neither
    layout, and the errors of that layout.
    """
    if not any(kohya.is_key(name) or diffusers.is_key(name) for name in header.tensors):
        example = next(iter(header.tensors), "none")
        raise InvalidWeights(
            f"no tensor of the file has a name of kohya's or diffusers' form ({example[:80]!a}), and there is"
            " no adapter_config.json: push the folder that the training wrote or, for a part of a pipeline,"
            " save it with pipeline.save_lora_weights(DIR, unet_lora_layers=…), whose names contain the part"
        )
    return _layout(header).config(data, header, read)


def describe(config: AdapterConfig, header: SafetensorsHeader) -> Spec:
    """The spec according to the layout of the keys."""
    return _layout(header).describe(config, header)


def _layout(header: SafetensorsHeader) -> AdapterLayout:
    return kohya.LAYOUT if any(kohya.is_key(name) for name in header.tensors) else diffusers.LAYOUT


LAYOUT = AdapterLayout(config, describe)
