"""torch's dtypes by safetensors' words, and back."""

from __future__ import annotations

import torch

from adaptry.compute.tensors.adapter_tensors import DTYPES

_WORDS = {dtype: word for word, dtype in DTYPES.items()}


def safetensors_dtype(dtype: torch.dtype) -> str:
    """`F32` and the like."""
    return _WORDS[dtype]


def torch_dtype(word: str) -> torch.dtype:
    return DTYPES[word]
