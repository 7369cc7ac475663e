"""Adapters that tools other than PEFT write: how the config and names of each layout map to ours.

A layout is one file with one `LAYOUT` and one entry in `LAYOUTS`. Files are stored unchanged; only their
description uses our terms.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.formats import PEFT, TORCHTUNE, AdapterFormat
from adaptry.adapters.header import SafetensorsHeader
from adaptry.adapters.layouts import adapterhub, mlx, peft, pipelines, torchtune
from adaptry.adapters.layouts.layout import AdapterLayout

LAYOUTS: Mapping[str, AdapterLayout] = {
    "peft": peft.LAYOUT,
    "adapterhub": adapterhub.LAYOUT,
    "mlx": mlx.LAYOUT,
    "diffusers": pipelines.LAYOUT,
    "kohya": pipelines.LAYOUT,
    "torchtune": torchtune.LAYOUT,
}


def format_by_keys(format: AdapterFormat, header: SafetensorsHeader) -> AdapterFormat:
    """The format of files that a tool other than PEFT wrote under PEFT's file names; otherwise `format`."""
    if format is PEFT and any(map(torchtune.is_key, header.tensors)):
        return TORCHTUNE
    return format
