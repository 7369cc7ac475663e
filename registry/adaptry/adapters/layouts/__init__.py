"""Adapters that tools other than PEFT write: how the config and names of each layout map to ours.

A layout is one file with one `LAYOUT` and one entry in `LAYOUTS`. Files are stored unchanged; only their
description uses our terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.formats import PEFT, TORCHTUNE, AdapterFormat
from adaptry.adapters.header import SafetensorsHeader
from adaptry.core.lazy_table import LazyTable

if TYPE_CHECKING:
    from adaptry.adapters.layouts.layout import AdapterLayout

LAYOUTS: Mapping[str, AdapterLayout] = LazyTable(
    __name__,
    {
        "peft": "peft:LAYOUT",
        "adapterhub": "adapterhub:LAYOUT",
        "mlx": "mlx:LAYOUT",
        "diffusers": "pipelines:LAYOUT",
        "kohya": "pipelines:LAYOUT",
        "torchtune": "torchtune:LAYOUT",
    },
)
"""Every layout; a layout is imported when it is looked up."""
_OF_PEFT = "base_model."


def format_by_keys(format: AdapterFormat, header: SafetensorsHeader) -> AdapterFormat:
    """The format of files that a tool other than PEFT wrote under PEFT's file names; otherwise `format`."""
    if format is not PEFT or all(name.startswith(_OF_PEFT) for name in header.tensors):
        return format
    from adaptry.adapters.layouts import torchtune

    return TORCHTUNE if any(map(torchtune.is_key, header.tensors)) else format
