"""Prints our performance targets and measured figures as Markdown, from one run of the benches.

    python bench/table.py [--small] [--only resolve-8,push] [--folder DIR]

Each bench runs as a process and records its rows (`figures.py`): ours and those of the peer or limit,
measured in turns. A ratio is the median of the rounds' ratios, ours to the peer's, with the minimum and
maximum in brackets. The column "target" (from `table_rows.py`) is set for two cores of an EPYC; "met"
compares it with the median. Rows of a bench that fails or lacks a peer are named on stderr. Everything takes
about a quarter of an hour. `--only` selects the benches that have rows whose names contain one of the texts.
`--small` only checks that every bench works: its figures mean nothing. Generated models are kept in
`--folder`. Without it, no files or processes remain: each bench has its own process group and temporary
folder.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

from table_rows import BENCHES, Bench, Row

HERE = Path(__file__).parent
TIMEOUT = 600  # seconds of one bench
HEADER = "| work | peer or limit | its figure | ours | ratio | target | met |\n|---|---|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="only to see that every bench works")
    parser.add_argument("--only", default="", help="rows whose names contain one of these, with commas")
    parser.add_argument("--folder", type=Path, help="where generated models are kept")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all started processes are ended
    wanted = asked.only.split(",")
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}\n\n{HEADER}", flush=True)
    with ExitStack() as stack:
        folder = asked.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="table-")))
        folder.mkdir(parents=True, exist_ok=True)
        for bench in BENCHES:
            if any(part in key for part in wanted for key in bench.rows):
                for line in lines_of(bench, folder.absolute(), is_small=asked.small):
                    print(line, flush=True)
    print(f"\nload after {os.getloadavg()[0]:.1f}")


def lines_of(bench: Bench, folder: Path, *, is_small: bool) -> Iterator[str]:
    """The bench's rows; names those that it did not note on stderr."""
    command = [sys.executable, str(HERE / f"{bench.script}.py"), *bench.options]
    command += [
        *(bench.small if is_small else ()),
        *(("--folder", str(folder)) if bench.takes_folder else ()),
    ]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="row-", ignore_cleanup_errors=True) as place:
        figures = Path(place) / "figures"
        figures.touch()
        Path(place).chmod(0o755)  # PostgreSQL and nginx run as other users
        environment = {**os.environ, "FIGURES": str(figures), "TMPDIR": place}
        problem = run(command, environment)
        found = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    print(f"{bench.script}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    for key, row in bench.rows.items():
        noted = [one for one in found if one["row"] == key]
        if noted:
            yield line_of(row, *([value for one in noted for value in one[who]] for who in ("ours", "peer")))
        else:
            print(f"{bench.script}: no figures for {key}: {problem}", file=sys.stderr, flush=True)


def run(command: Sequence[str], environment: dict[str, str]) -> str:
    """Runs a bench, and ends all processes that it leaves; returns the last line of its output."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            process.wait(TIMEOUT)
            late = ""
        except subprocess.TimeoutExpired:
            late = f"ended after {TIMEOUT} s; "
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return late + " ".join(output.read().strip().splitlines()[-1:])


def line_of(row: Row, ours: Sequence[float], peer: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ours, peer, strict=True)] if peer else []
    cells = (
        row.work,
        row.peer,
        figure(row, peer),
        figure(row, ours),
        spread(ratios),
        str(row.target or ""),
        verdict(row, ours, ratios),
    )
    return f"| {' | '.join(cells)} |"


def verdict(row: Row, ours: Sequence[float], ratios: Sequence[float]) -> str:
    if row.target is None:
        return ""
    values = ratios if row.target.is_ratio else [value * row.scale for value in ours]
    return ("yes" if row.target.is_met(median(values)) else "**no**") if values else "?"


def figure(row: Row, values: Sequence[float]) -> str:
    """The median, with the minimum and maximum in brackets."""
    text = spread([value * row.scale for value in values])
    return f"{text} {row.unit}" if text else ""


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle, least, most = (f"{value:,.4g}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})" if len(values) > 1 else middle


if __name__ == "__main__":
    main()
