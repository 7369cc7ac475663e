"""Measures the cost of `verify --read-data`, compared with hashing the same bytes.

    python bench/verify.py [--size-mb 400] [--files 4] [--rounds 3] [--folder DIR]

A registry with a few large adapters is verified, and the same stored files are hashed one after the other, in
the same process and in turn; the best of the rounds counts. Files are in the page cache. The last line is the
ratio of the two throughputs: 1.00 means that verifying costs what hashing costs.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.samples import tiny_lora, write_safetensors


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size-mb", type=int, default=400)
    arguments.add_argument("--files", type=int, default=4)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(Path(folder), options.size_mb << 20, options.files, options.rounds)


def measure(folder: Path, size: int, files: int, rounds: int) -> None:
    registry = open_local(folder / "registry")
    for number in range(files):
        made = adapter_of(folder / f"adapter-{number}", size // files, number)
        push(registry, open_dir(made), f"acme/tone-{number}")
    stored = [path for path in (folder / "registry" / "blobs" / "sha256").rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in stored)
    hashing, verifying = [], []
    for _ in range(rounds):  # alternately, so that other load affects both
        hashing.append(seconds(lambda: hash_all(stored)))
        verifying.append(seconds(lambda: check(registry)))
    print(f"{total / 1e6:,.0f} MB in {len(stored)} files, best of {rounds}")
    print(f"hashing              {total / min(hashing) / 1e9:.2f} GB/s")
    print(f"verify --read-data   {total / min(verifying) / 1e9:.2f} GB/s")
    print(f"ratio                {min(hashing) / min(verifying):.2f}")


def adapter_of(folder: Path, size: int, number: int) -> Path:
    """A LoRA of about `size` bytes, with simple values that depend on `number`."""
    made = tiny_lora(folder)
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    width = size // (2 * 4 * 4)
    values = bytes((number + 1 + at) % 64 for at in range(64)) * (width * 16 // 64)
    wide = len(values) // 16
    tensors = {
        f"{module}.lora_A.weight": ("F32", (4, wide), values),
        f"{module}.lora_B.weight": ("F32", (wide, 4), values),
    }
    write_safetensors(made / "adapter_model.safetensors", tensors)
    return made


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def hash_all(paths: list[Path]) -> None:
    for path in paths:
        hasher = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(1 << 20):
                hasher.update(chunk)
        assert hasher.hexdigest() == path.name


def check(registry: LocalRegistry) -> None:
    assert verify(registry.catalog, registry.blobs) == ()


if __name__ == "__main__":
    main()
