"""Adapters as other tools than PEFT write them: how each layout's config and names become ours.

A layout is one file with one `LAYOUT` and one entry in `LAYOUTS`. Files stay as they are; only what we say of
them is in our words.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.layouts import adapterhub, mlx, peft, pipelines
from adaptry.adapters.layouts.layout import AdapterLayout

LAYOUTS: Mapping[str, AdapterLayout] = {
    "peft": peft.LAYOUT,
    "adapterhub": adapterhub.LAYOUT,
    "mlx": mlx.LAYOUT,
    "diffusers": pipelines.LAYOUT,
    "kohya": pipelines.LAYOUT,
}
