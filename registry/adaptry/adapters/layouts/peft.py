"""PEFT's layout, which is also ours: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

from adaptry.adapters.config import parse_config
from adaptry.adapters.layouts.layout import AdapterLayout
from adaptry.adapters.methods import describe

LAYOUT = AdapterLayout(
    config=lambda data, header, read: parse_config(data),
    describe=lambda config, header: describe(config, header.tensors),
)
