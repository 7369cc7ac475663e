"""Records where a bench and the processes that it starts spend their processor time, as a flame graph.

    python bench/flame.py combine [-o combine.svg] [--native] [--small] [--least 2] [--only adaptry]

The bench is one of `table_rows.py`, with its options and those that this script does not know. py-spy
(`pip install py-spy`) samples the running threads of every process 100 times a second. Prints a tree of the
stacks, in percent of the samples; with `-o`, also draws it as a flame graph. `--native` adds the functions of
compiled libraries. `--least` is the smallest percentage shown. With `--only`, stacks begin at their first
frame that contains this text.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from table_rows import BENCHES, Bench

HERE = Path(__file__).parent
LINE = re.compile(r":\d+\)$")
NEEDLESS = re.compile(r"importlib|^0x|^_?Thread|^thread_run|^_WorkItem|runpy|^<module>|^_run_code")
WAITING = re.compile(r"PyThread_acquire_lock|pthread_cond_|epoll_|sem_\w*wait|^poll|take_gil|clock_nanosleep")
MAX_LENGTH = 80  # letters of a process's command line
WIDTH, ROW, LETTER = 1200, 17, 6.5  # pixels
COLOURS = ("#f6b26b", "#f9cb9c", "#ffd966", "#ffe599", "#ea9999", "#f4cccc")


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
    parser.add_argument("-o", "--output", type=Path, help="an .svg file for the flame graph")
    parser.add_argument("--native", action="store_true", help="also show functions of compiled libraries")
    parser.add_argument("--small", action="store_true", help="only to see that it works")
    parser.add_argument("--least", type=float, default=2.0, help="smallest percentage shown")
    parser.add_argument("--only", default="", help="show only stacks below frames that contain this text")
    asked, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="flame-") as scratch:
        command = command_of(benches[asked.bench], Path(scratch), is_small=asked.small)
        stacks = Path(scratch) / "stacks.txt"
        record([*command, *more], stacks, scratch, with_native=asked.native)
        tree = Node()
        for frames, count in stacks_of(stacks.read_text(encoding="utf-8"), asked.only):
            tree.add(frames, count)
    print("\n".join(lines_of(tree, tree.count, asked.least)))
    if asked.output:
        asked.output.write_text(drawn(tree, asked.least), encoding="utf-8")


def command_of(bench: Bench, folder: Path, *, is_small: bool) -> list[str]:
    command = [sys.executable, str(HERE / f"{bench.script}.py"), *bench.options]
    return [
        *command,
        *(bench.small if is_small else ()),
        *(("--folder", str(folder)) if bench.takes_folder else ()),
    ]


def record(command: list[str], target: Path, scratch: str, *, with_native: bool) -> None:
    """Runs the command under py-spy. Exits if it fails."""
    spy = Path(sys.executable).with_name("py-spy")
    words = ["record", "--subprocesses", "--rate", "100", "--format", "raw", "-o", str(target)]
    words.append("--native" if with_native else "--nonblocking")
    environment = {**os.environ, "TMPDIR": scratch}
    run = subprocess.run(
        [str(spy), *words, "--", *command], check=False, capture_output=True, text=True, env=environment
    )
    if not target.exists():
        sys.exit(f"py-spy recorded nothing:\n{run.stdout}{run.stderr}")


def stacks_of(text: str, only: str) -> Iterator[tuple[list[str], int]]:
    """The stacks of py-spy's raw format, from the outermost frame, without line numbers, the import system,
    the starts of threads, and functions without a name. Stacks that end in a wait are left out: with
    native functions, py-spy takes some for running.
    """
    found: Counter[tuple[str, ...]] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdecimal():
            continue  # the beginning of a process's command line that has line breaks
        frames = stack.split(";")
        start = next((place for place, frame in enumerate(frames) if only in frame), None)
        named = [frame for frame in frames if not frame.startswith("0x")]
        if start is not None and not WAITING.search(named[-1]):
            shown = (LINE.sub(")", frame) for frame in frames[start:] if not NEEDLESS.search(frame))
            found[tuple(frame[:MAX_LENGTH] for frame in shown)] += int(count)
    for stack_, count_ in found.items():
        yield list(stack_), count_


def lines_of(tree: Node, total: int, least: float, depth: int = 0) -> Iterator[str]:
    """The tree, without frames that have less than `least` percent."""
    for frame, node in sorted(tree.below.items(), key=lambda item: -item[1].count):
        share = 100 * node.count / max(1, total)
        if share >= least:
            yield f"{share:5.1f} {'  ' * depth}{frame}"
            yield from lines_of(node, total, least, depth + 1)


def drawn(tree: Node, least: float) -> str:
    """The tree as an SVG image, the outermost frames on top; frames show their text when pointed at."""
    boxes = list(boxes_of(tree, tree.count, least, 0.0, 0))
    height = ROW * (1 + max((depth for *_, depth in boxes), default=0))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="monospace" font-size="11">'
    ]
    for text, start, share, depth in boxes:
        x, y, width = WIDTH * start / 100, ROW * depth, WIDTH * share / 100
        colour = COLOURS[zlib.crc32(text.encode()) % len(COLOURS)]
        shown = text if len(text) * LETTER < width else text[: max(0, int(width / LETTER) - 2)] + "…"
        lines.append(
            f"<g><title>{escape(text)}: {share:.1f} %</title>"
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}" fill="{colour}"/>'
            + (f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if len(shown) > 2 else "")
            + "</g>"
        )
    return "\n".join([*lines, "</svg>", ""])


def boxes_of(
    tree: Node, total: int, least: float, start: float, depth: int
) -> Iterator[tuple[str, float, float, int]]:
    """Text, start and width in percent, and depth of each frame that has at least `least` percent."""
    for frame, node in sorted(tree.below.items(), key=lambda item: -item[1].count):
        share = 100 * node.count / max(1, total)
        if share >= least:
            yield frame, start, share, depth
            yield from boxes_of(node, total, least, start, depth + 1)
        start += share


if __name__ == "__main__":
    main()
