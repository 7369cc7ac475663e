"""The visibility of adapters and bases: who may read them without a grant."""

from __future__ import annotations

from typing import Literal

Visibility = Literal["private", "public"]
BaseVisibility = Literal["private", "internal", "public"]
"""Also `internal`: every principal who may read some namespace may read the base."""
