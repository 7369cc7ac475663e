"""Quantised checkpoints: which of their tensors form one weight, its shape, and the method that packed it.

This is read from headers and, if a shape is stored as a value, from a few small tensors. Unrecognised tensors
stay as they are on disk. Nothing is dequantised here (`merging.dequantisation` does that), so recognising a
copy does not need torch.
"""

from adaptry.bases.quantised.logical_view import LogicalView, open_logical_view
from adaptry.bases.quantised.packed_weight import PackedWeight

__all__ = ["LogicalView", "PackedWeight", "open_logical_view"]
