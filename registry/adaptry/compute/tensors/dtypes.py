"""Maps between safetensors' dtype names (`BF16`) and torch's dtypes."""

from __future__ import annotations

import torch

from adaptry.compute.tensors.adapter_tensors import DTYPES

_WORDS = {dtype: word for word, dtype in DTYPES.items()}


def safetensors_dtype(dtype: torch.dtype) -> str:
    """The name in safetensors, such as `F32`."""
    return _WORDS[dtype]


def torch_dtype(word: str) -> torch.dtype:
    return DTYPES[word]
