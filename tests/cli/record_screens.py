"""Records the output of the main commands in terminals of 80 and 120 columns, as a page.

    python -m tests.cli.record_screens > docs/screens.md

Each command runs in a real pseudo-terminal, over a registry with tiny adapters. Times, free space and digests
differ from run to run, so no test compares the page.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from adaptry.testing.samples import tiny_base, tiny_lora

_ADAPTRY = str(Path(sys.executable).with_name("adaptry"))
_PREPARATION = (
    "base add ./base --name org/model",
    "push ./out acme/tone --metric accuracy=0.91 --alias prod",
    "push ./out-2 acme/tone --metric accuracy=0.93 --alias staging",
    "push ./out-3 acme/facts --metric accuracy=0.88",
    "combine acme/tone@2 acme/facts=0.5 --method ties -o acme/both",
    "deprecate acme/tone@1 --reason 'version 2 is better' --successor acme/tone@2",
)
_SCREENS = {
    "Adapters": "ls",
    "Versions of an adapter": "ls acme/tone",
    "A version": "show acme/both",
    "A search": "search 'base:org/model metric.accuracy>=0.9'",
    "A check with findings": "check ./bad --base org/model",
    "The plan for combining adapters": "combine acme/tone@2 acme/facts=0.5 --method ties -o acme/x --dry-run",
    "Differences between two versions": "diff acme/tone@2 acme/facts --weights --top 3",
    "Diagnostics of this machine": "doctor",
    "Jobs": "jobs watch",
}
_HEAD = """# Terminal output

This page shows what the main commands print in terminals of 80 and 120 columns, recorded by
`python -m tests.cli.record_screens` with colours off. The adapters are tiny and untrained. For `jobs watch`,
the final state is shown. Output to pipes and files has all columns and exact times.
"""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TO_THE_TOP = re.compile(r"\x1b\[\d*[AHJ]")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"ADAPTRY_HOME": str(folder / "registry"), "NO_COLOR": "1", "TERM": "xterm"}
        os.chdir(folder)
        _prepare()
        print(_HEAD)
        for title, command in _SCREENS.items():
            print(f"## {title}\n")
            for width in (80, 120):
                text = _screen(command, width).replace(name, "/home/ann")
                print(f"{width} columns:\n\n```text\n$ adaptry {command}\n{text}\n```\n")


def _prepare() -> None:
    tiny_base(Path("base"))
    for number, rank in ((1, 4), (2, 8), (3, 8)):
        out = "out" if number == 1 else f"out-{number}"
        tiny_lora(Path(out), base_name="./base", rank=rank, seed=number)
    tiny_lora(
        Path("bad"),
        base_name="./base",
        config={"lora_alpha": 0, "target_modules": ["q_proj", "v_proj", "k_proj"]},
    )
    for command in _PREPARATION:
        subprocess.run(f"{_ADAPTRY} {command}", shell=True, check=True, capture_output=True)


def _screen(command: str, width: int) -> str:
    """The output of a command in a terminal of this width; for a table that is refreshed, its last state."""
    runner = None
    if command == "jobs watch":
        for name in ("a", "b"):
            job = f"jobs submit combine inputs=acme/tone@2 inputs=acme/facts to=acme/job-{name}{width}"
            subprocess.run(f"{_ADAPTRY} {job}", shell=True, check=True, capture_output=True)
        runner = subprocess.Popen(
            [_ADAPTRY, "work", "--once"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    shown = _in_terminal(f"{_ADAPTRY} {command}", width)
    if runner is not None:
        runner.wait()
    last = _TO_THE_TOP.split(shown)[-1]
    lines = [_CONTROL.sub("", line).rpartition("\r")[2] for line in last.replace("\r\n", "\n").split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def _in_terminal(command: str, width: int) -> str:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(["sh", "-c", command], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the last process on the terminal has ended
            break
        if not part:
            break
        parts.append(part)
    process.wait()
    os.close(ours)
    return b"".join(parts).decode()


if __name__ == "__main__":
    main()
