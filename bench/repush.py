"""Compares a repeated upload, unchanged and slightly changed, with the first one, through Xet and through Git
LFS.

    python bench/repush.py [--size-mb 329] [--rounds 3] [--folder DIR]

`hf upload` of one adapter of random weights into `adaptry serve` on loopback: first, again unchanged, and
with different bytes in one of its tensors. Each client is a separate process with a fresh cache; the best of
the rounds counts. "Nothing known" is the server with its chunk maps removed, which answers as if it kept
none. Sent: bytes of the requests' bodies, as the server counts them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

from hub import CLIENT, Place, adaptry, show
from transfer import best, large_lora

WAYS: tuple[tuple[str, dict[str, str]], ...] = (("Xet", {}), ("Git LFS", {"HF_HUB_DISABLE_XET": "1"}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size-mb", type=int, default=329)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, adaptry(Path(folder) / "data") as place:
        measure(Path(folder), place, asked.size_mb << 20, asked.rounds)


def measure(folder: Path, place: Place, size: int, rounds: int) -> None:
    large, changed = large_lora(folder / "large", size), folder / "changed"
    print(f"{size / 1e6:,.0f} MB, best of {rounds}")
    for way, settings in WAYS:
        name = way.lower().replace(" ", "-")

        def upload(source: Path, repository: str, settings: dict[str, str] = settings) -> None:
            place.run(CLIENT, "upload", f"acme/{repository}", source, **settings)

        first = timed(place, rounds, lambda n, name=name: upload(large, f"{name}-{n}"))
        show(f"{way}, the first time, s", *first)
        if way == "Xet":
            maps = folder / "data" / "spools" / ".chunks"

            def unknown(number: int, name: str = name, maps: Path = maps) -> None:
                shutil.rmtree(maps, ignore_errors=True)
                upload(large, f"{name}-0")

            before = timed(place, rounds, unknown)
            show(f"{way}, again, nothing known, s", *before)
        again = timed(place, rounds, lambda n, name=name: upload(large, f"{name}-0"))
        show(
            f"{way}, again, s", again[0], f"{again[1]}, {first[0] / again[0]:.1f} times as fast as the first"
        )
        if way == "Xet":
            print(f"  {'':<52}          {before[0] / again[0]:.1f} times as fast as with nothing known")
        copies(large, changed, rounds)
        little = timed(place, rounds, lambda n, name=name: upload(changed / str(n), f"{name}-0"))
        show(
            f"{way}, one MiB of it changed, s",
            little[0],
            f"{little[1]}, {first[0] / little[0]:.1f} times as fast as the first",
        )


def copies(large: Path, folder: Path, rounds: int) -> None:
    """This many copies, each with a different MiB in the middle."""
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(rounds):
        copy = shutil.copytree(large, folder / str(number))
        weights = copy / "adapter_model.safetensors"
        with weights.open("r+b") as file:
            file.seek(weights.stat().st_size // 2 // 4096 * 4096)
            run = bytearray(file.read(1 << 20))
            run[::2] = bytes(
                byte ^ (number + 1) for byte in run[::2]
            )  # the low bytes of bfloat16: all stay finite
            file.seek(-len(run), os.SEEK_CUR)
            file.write(run)


def timed(place: Place, rounds: int, upload: Callable[[int], None]) -> tuple[float, str]:
    """The best of the rounds in seconds, and the bytes sent in each."""
    before = received(place)
    seconds = best(rounds, upload)
    return seconds, f"{(received(place) - before) / rounds / 1e6:.1f} MB sent"


def received(place: Place) -> float:
    """Bytes of request bodies so far, as `/metrics` counts them."""
    request = urllib.request.Request(
        f"{place.url}/metrics", headers={"Authorization": f"Bearer {place.token}"}
    )
    text = urllib.request.urlopen(request).read().decode()
    found = re.search(r"^adaptry_received_bytes_total (\S+)$", text, re.MULTILINE)
    assert found, text
    return float(found[1])


if __name__ == "__main__":
    main()
