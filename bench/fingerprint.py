"""Measures how close the full hashing of a base is to the speed of SHA-256 on all cores, in one run.

    python bench/fingerprint.py [--size MiB] [--shards N]

Both numbers are bytes hashed per second: by `full_hashes` out of files in the page cache, and by bare SHA-256
over memory in as many threads as there are cores. Then the header-only fingerprint of 30 shards. Targets: at
least 0.9, and at most 0.5 s.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from figures import note
from transfer import in_turns

from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.fingerprinting.full_hashes import full_hashes
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.testing.samples import tiny_base, write_safetensors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB of weights")
    parser.add_argument("--shards", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = _base(Path(scratch) / "large", asked.size, asked.shards)
        ours, bare = [], []
        for _ in range(7):
            ours.append(_full_speed(folder))
            bare.append(_bare_speed(512 << 20))
        print(f"full hashing  {max(ours) / 1e9:.2f} GB/s")
        print(f"sha256 alone  {max(bare) / 1e9:.2f} GB/s on {os.cpu_count()} cores")
        print(f"ratio         {max(ours) / max(bare):.2f}  (aim: 0.90 or more)")
        beside_sha256sum(folder)
        wide = tiny_base(Path(scratch) / "wide", layers=80, hidden=32, shards=30)
        started = time.perf_counter()
        record = fingerprint(open_checkpoint(wide))
        seconds = time.perf_counter() - started
        print(
            f"headers only  {seconds:.2f} s for 30 shards, {len(record.tensors)} tensors  (aim: 0.5 or less)"
        )


def beside_sha256sum(folder: Path, rounds: int = 5) -> None:
    """The digests of every tensor and file, beside `sha256sum` of the bytes twice, on all cores."""
    shards = sorted(folder.glob("*.safetensors"))
    twice = "\n".join(map(str, [*shards, *shards])).encode()
    command = ["xargs", "-n", "1", "-P", str(os.cpu_count()), "sha256sum"]
    taken = in_turns(
        rounds,
        {
            "sha256sum": lambda _: subprocess.run(
                command, input=twice, check=True, stdout=subprocess.DEVNULL
            ),
            "ours": lambda _: _full_speed(folder),
        },
    )
    ratio = median(one / other for one, other in zip(taken["ours"], taken["sha256sum"], strict=True))
    print(f"all digests   {median(taken['ours']):.2f} s, {ratio:.2f} x sha256sum twice  (aim: 1.2 or less)")
    note("fingerprint", taken["ours"], taken["sha256sum"])


def _base(folder: Path, size: int, shards: int) -> Path:
    """A base of random bfloat16 weights with the requested size, in a few tensors of 16 MiB per shard."""
    tiny_base(folder)
    (folder / "model.safetensors").unlink()
    each = max(1, size // shards // 16)
    for shard in range(shards):
        tensors = {
            f"model.layers.{shard * each + number}.mlp.up_proj.weight": (
                "BF16",
                (4096, 2048),
                os.urandom(16 << 20),
            )
            for number in range(each)
        }
        write_safetensors(folder / f"model-{shard + 1:05d}-of-{shards:05d}.safetensors", tensors)
    return folder


def _full_speed(folder: Path) -> float:
    checkpoint = open_checkpoint(folder)
    record = fingerprint(checkpoint)
    hashed = 0

    def count(text: str, done: int, total: int) -> None:
        nonlocal hashed
        hashed = total

    started = time.perf_counter()
    full_hashes(checkpoint, record, progress=count)
    return hashed / (time.perf_counter() - started)


def _bare_speed(size: int) -> float:
    cores = os.cpu_count() or 1
    piece = bytes(1 << 20)

    def hash_pieces(_: int) -> None:
        hasher = hashlib.sha256()
        for _ in range(size >> 20):
            hasher.update(piece)

    started = time.perf_counter()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(hash_pieces, range(cores)))
    return cores * size / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
