"""Compares the time of an export with that of reading the adapter's file once, in one run.

    python bench/export.py [--rank N] [--layers N]

An rsLoRA of hidden size 2048 with another alpha for half of its layers, so that every scale has to be folded
in: it is exported as a plain LoRA for SGLang, and as a GGUF for llama.cpp. "Reading" reads the same file from
the page cache and computes a checksum, like a program that copies it.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import parse_runtime
from adaptry.compute.exporting.export import export
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.testing.samples import tiny_base, tiny_lora

_HIDDEN = 2048
_TIMES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int, default=64)
    parser.add_argument("--layers", type=int, default=24)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        adapter = _adapter(folder / "adapter", asked.rank, asked.layers)
        base = _base(folder / "base", asked.layers)
        size = (adapter / "adapter_model.safetensors").stat().st_size
        reading = min(_seconds(partial(_read, adapter)) for _ in range(_TIMES))
        print(f"adapter    {size / 1e6:.0f} MB; reading it with SHA-256 {reading:.2f} s")
        for engine in ("sglang", "llama.cpp"):
            taken = min(_seconds(partial(_export, adapter, base, engine, folder)) for _ in range(_TIMES))
            print(f"{engine:10} {taken:.2f} s, {taken / reading:.1f} times reading")


def _adapter(folder: Path, rank: int, layers: int) -> Path:
    pattern = {f"layers.{layer}.self_attn.q_proj": 16 for layer in range(0, layers, 2)}
    tiny_lora(folder, layers=1, rank=rank, config={"use_rslora": True, "alpha_pattern": pattern})
    key = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"
    sides = {"A": (rank, _HIDDEN), "B": (_HIDDEN, rank)}
    tensors = {
        key.format(layer, name, factor): torch.randn(shape) * 0.02
        for layer in range(layers)
        for name in ("q_proj", "v_proj")
        for factor, shape in sides.items()
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def _base(folder: Path, layers: int) -> BaseRecord:
    """The record of a base of these sides: an export reads only its shapes."""
    record = fingerprint(open_checkpoint(tiny_base(folder, layers=layers)))
    wide = {
        name: shape.model_copy(update={"shape": (_HIDDEN, _HIDDEN)}) if "self_attn" in name else shape
        for name, shape in record.tensors.items()
    }
    return record.model_copy(update={"tensors": wide})


def _export(adapter: Path, base: BaseRecord, engine: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as place:
        export(
            ParentAdapter(open_dir(adapter), "it"),
            Path(place) / "out",
            ExportOptions(base),
            runtime=parse_runtime(engine),
        )


def _read(adapter: Path) -> None:
    with (adapter / "adapter_model.safetensors").open("rb") as file:
        hashlib.file_digest(file, "sha256")


def _seconds(act: Callable[[], None]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
