"""Converts adapters as the command line does, and computes PEFT's results before and after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.conversion.base_shapes import ConversionBase
from adaptry.compute.conversion.convert import convert
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.lazy_adapters.folder_writer import ComputeResult, write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

if TYPE_CHECKING:
    from ..methods.on_base import Pair

Weights = Mapping[str, Any]
"""Tensors by name."""


@dataclass(frozen=True)
class Converted:
    """A conversion that was written to `folder`."""

    lazy_adapter: LazyAdapter
    outcome: ComputeResult
    folder: Path

    @property
    def adapter(self) -> Adapter:
        return open_dir(self.folder)


def ground_of(base: Path) -> ConversionBase:
    checkpoint = open_checkpoint(base)
    return ConversionBase(fingerprint(checkpoint), checkpoint)


def converted(adapter: Path, base: Path | None, target: Path, **asked: Any) -> Converted:
    """`adapter` as a plain LoRA in `target`; without a `base`, from its own files alone."""
    parent = ParentAdapter(open_dir(adapter), "tone")
    lazy_adapter = convert(parent, ConvertOptions(**asked), ground_of(base) if base else None)
    return Converted(lazy_adapter, write_adapter(lazy_adapter, target), target)


def in_place(pair: Pair, target: Path, **asked: Any) -> Converted:
    """Converts the pair's adapter, and replaces it by the result."""
    made = converted(pair.adapter, pair.base, target, **asked)
    pair.adapter = target
    return made


def distance(found: Weights, wanted: Weights, names: Iterable[str]) -> float:
    """‖found − wanted‖ over all of these tensors, in float64."""
    return math.sqrt(
        sum(float((found[name].double() - wanted[name].double()).square().sum()) for name in names)
    )
