"""The bound below which numbers of an update count as rounding errors. Importing it loads no torch."""

from __future__ import annotations

from typing import Final

NEGLIGIBLE: Final = 1e-6
"""A rounding error of float32, as a share of the largest singular value, or of the sum of the added norms."""
