"""Quantised checkpoints: which of their tensors make up one weight, of what shape, packed by which method.

Told from headers and, where a shape is stored as a value, from a few small tensors. What is not recognised
stays as it lies on disk. Nothing is dequantised here: the arithmetic is `merging.dequantisation`'s, and no
torch is needed to know a copy.
"""

from adaptry.bases.quantised.logical_view import LogicalView, open_logical_view
from adaptry.bases.quantised.packed_weight import PackedWeight

__all__ = ["LogicalView", "PackedWeight", "open_logical_view"]
