"""Who may read an adapter or a base besides those with a grant."""

from __future__ import annotations

from typing import Literal

Visibility = Literal["private", "public"]
BaseVisibility = Literal["private", "internal", "public"]
"""As for adapters, and `internal`: readable by every principal who may read any namespace."""
