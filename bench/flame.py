"""Records where a bench and the processes that it starts spend their processor time, as a flame graph.

    python bench/flame.py combine [-o combine.svg] [--small] [--least 2] [--only adaptry]

The bench is one of `table_rows.py`, with its options. py-spy (`pip install py-spy`) samples the running
threads of every process 100 times a second. Prints a tree of the stacks, in percent of the samples; with
`-o`, runs the bench again and writes a flame graph, or the samples for speedscope.app if the file ends with
`.json`. `--least` is the smallest percentage in the tree. With `--only`, stacks begin at their first frame
that contains this text.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from table_rows import BENCHES, Bench

HERE = Path(__file__).parent
LINE = re.compile(r":\d+\)$")
FORMATS = {".svg": "flamegraph", ".json": "speedscope"}


@dataclass
class Node:
    """A frame of a tree of stacks: its samples, and the frames that it called."""

    count: int = 0
    below: dict[str, Node] = field(default_factory=dict)

    def add(self, frames: Iterable[str], count: int) -> None:
        node = self
        node.count += count
        for frame in frames:
            node = node.below.setdefault(frame, Node())
            node.count += count


def main() -> None:
    benches = {bench.script: bench for bench in BENCHES}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bench", choices=sorted(benches))
    parser.add_argument("-o", "--output", type=Path, help="an .svg file, or a .json file for speedscope.app")
    parser.add_argument("--small", action="store_true", help="only to see that it works")
    parser.add_argument("--least", type=float, default=2.0, help="smallest percentage that the tree shows")
    parser.add_argument("--only", default="", help="show only stacks below frames that contain this text")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flame-") as scratch:
        command = command_of(benches[asked.bench], Path(scratch), is_small=asked.small)
        stacks = Path(scratch) / "stacks.txt"
        record(command, "raw", stacks, scratch)
        if asked.output:
            record(command, FORMATS[asked.output.suffix], asked.output, scratch)
        tree = Node()
        for frames, count in stacks_of(stacks.read_text(encoding="utf-8"), asked.only):
            tree.add(frames, count)
    print("\n".join(lines_of(tree, tree.count, asked.least)))


def command_of(bench: Bench, folder: Path, *, is_small: bool) -> list[str]:
    command = [sys.executable, str(HERE / f"{bench.script}.py"), *bench.options]
    return [
        *command,
        *(bench.small if is_small else ()),
        *(("--folder", str(folder)) if bench.takes_folder else ()),
    ]


def record(command: list[str], format: str, target: Path, scratch: str) -> None:
    """Runs the command under py-spy. Exits if it fails."""
    spy = Path(sys.executable).with_name("py-spy")
    words = [
        "record",
        "--subprocesses",
        "--rate",
        "100",
        "--nonblocking",
        "--format",
        format,
        "-o",
        str(target),
    ]
    environment = {**os.environ, "TMPDIR": scratch}
    run = subprocess.run(
        [str(spy), *words, "--", *command], check=False, capture_output=True, text=True, env=environment
    )
    if not target.exists():
        sys.exit(f"py-spy recorded nothing:\n{run.stdout}{run.stderr}")


def stacks_of(text: str, only: str) -> Iterator[tuple[list[str], int]]:
    """The stacks of py-spy's raw format, from the outermost frame, without line numbers and the import
    system.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdecimal():
            continue  # the beginning of a process's command line that has line breaks
        frames = [LINE.sub(")", frame) for frame in stack.split(";") if "importlib" not in frame]
        start = next((place for place, frame in enumerate(frames) if only in frame), None)
        if start is not None:
            found[tuple(frames[start:])] += int(count)
    for stack_, count_ in found.items():
        yield list(stack_), count_


def lines_of(tree: Node, total: int, least: float, depth: int = 0) -> Iterator[str]:
    """The tree, without frames that have less than `least` percent."""
    for frame, node in sorted(tree.below.items(), key=lambda item: -item[1].count):
        share = 100 * node.count / max(1, total)
        if share >= least:
            yield f"{share:5.1f} {'  ' * depth}{frame}"
            yield from lines_of(node, total, least, depth + 1)


if __name__ == "__main__":
    main()
