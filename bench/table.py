"""The figures that we hold ourselves to, from one run of the benches that measure them, in Markdown.

    python bench/table.py [--small] [--only push,pull] [--folder .bench]

Each bench runs as a process and notes its rows (`figures.py`): ours and the peer's or limit's, which take
turns in it. A ratio is the median of the rounds' ratios, ours to the peer's, with the least and the most in
brackets. The column "asked" is the target, set for two cores of an EPYC. `--small` only shows that every
bench works: its figures mean nothing. Rows of a bench that fails, or lacks a peer, are left out, with a
message on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A row as people read it. A figure is shown times `scale`, in its `unit`."""

    work: str
    peer: str
    target: str
    unit: str = "s"
    scale: float = 1.0


@dataclass(frozen=True)
class Bench:
    """A script, its options, those that make it `small`, and the rows that it notes."""

    script: str
    rows: Mapping[str, Row]
    options: Sequence[str] = ()
    small: Sequence[str] = ()
    takes_folder: bool = False


def _ms(work: str, peer: str, target: str) -> Row:
    return Row(work, peer, target, "ms", 1e3)


def _rate(work: str, peer: str, target: str) -> Row:
    return Row(work, peer, target, "/s")


BENCHES = (
    Bench(
        "resolve",
        {
            "resolve-8": _rate("resolve an alias, 8 clients", "FastAPI + sqlite3", "≥ 3,000/s"),
            "resolve-8-p99": _ms("  its p99", "", "≤ 10 ms"),
            "resolve-8-304": _rate("  nothing new (304)", "the same, with an answer", "> 1 ×"),
            "resolve-32": _rate("resolve an alias, 32 clients", "FastAPI + sqlite3", "≥ 3,000/s"),
            "resolve-32-p99": _ms("  its p99", "", "≤ 25 ms"),
            "search-8": _rate("search by base, rank and metric, 8 clients, each time another", "", "≥ 800/s"),
            "search-8-repeated": _rate("  the same search again", "", "≥ 800/s"),
        },
        options=("--clients", "8", "32"),
        small=("--size", "1000", "--seconds", "0.5", "--rounds", "1"),
    ),
    Bench(
        "search",
        {"search": _ms("search by base, rank and metric", "", "≤ 3 ms")},
        small=("--sizes", "1000", "2000", "--times", "3"),
    ),
    Bench(
        "small_push",
        {
            "push-alone": _ms("push of a small adapter", "three flushes", "≤ 12 ms"),
            "push-cpu": _ms("  processor time of the server", "", "≤ 5 ms"),
            "push-together": _rate("push of a small adapter, 8 clients", "", "≥ 250/s"),
            "memory": Row("memory of a server after pushes", "", "≤ 130 MB", "MB", 1e-6),
        },
        small=("--pushes", "16", "--rounds", "1"),
    ),
    Bench(
        "commands",
        {
            "ls": _ms("`adaptry ls`", "python", "≤ 120 ms"),
            "push-command": _ms("`adaptry push`, 10 MB", "sha256sum, cp, fsync", "≤ 180 ms"),
            "pull-start": _ms("`adaptry pull` of a small adapter", "python", "≤ 100 ms"),
        },
        small=("--versions", "1000", "--rounds", "1"),
    ),
    Bench(
        "transfer",
        {
            "push-embedded": Row("embedded push of 200 MB", "sha256sum, cp, fsync", "≤ 1.2 ×"),
            "push-http": Row("push of 200 MB over HTTP", "sha256sum, cp, fsync", "≤ 1.5 ×"),
            "pull": Row("pull of 200 MB, verified", "curl, sha256sum, fsync", "≥ 0.85 GB/s"),
        },
        small=("--size-mb", "16", "--rounds", "1"),
    ),
    Bench(
        "hub",
        {
            "hub-snapshots": _rate("`snapshot_download` of small adapters", "nginx", "≥ 0.9 ×"),
        },
        small=("--size-mb", "16", "--adapters", "3", "--rounds", "1"),
    ),
    Bench(
        "hub_reads",
        {"hub-snapshot-processor": _ms("  its five requests, processor time of the server", "", "≤ 1.1 ms")},
        small=("--adapters", "3", "--rounds", "1"),
    ),
    Bench(
        "hub_upload",
        {
            "hub-upload-xet": Row("`hf upload` of 200 MB, by Xet", "the client's own work", "≤ 1.2 ×"),
            "hub-upload-lfs": Row("`hf upload` of 200 MB, by Git LFS", "the client's own work", "≤ 1.2 ×"),
        },
        small=("--size-mb", "16", "--rounds", "1"),
    ),
    Bench(
        "hub_commit",
        {"hub-commit": Row("500 small files in one Hub commit", "written and flushed together", "≤ 2 s")},
        small=("--files", "20", "--rounds", "1"),
    ),
    Bench(
        "merge",
        {
            "merge": Row("merge with digests", "cp, flushed", "≤ 2.0 ×"),
            "merge-peft": Row("merge with digests", "PEFT", "≤ 0.1 ×"),
        },
        small=("--small", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "merge_methods",
        {
            "merge-dora": Row("DoRA merge", "LoRA merge", "≤ 2 ×"),
            "merge-loha": Row("LoHa merge", "LoRA merge", "≤ 2 ×"),
        },
        options=("--methods", "dora,loha", "--no-peft"),
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "merge_several",
        {"merge-eight": Row("8 adapters in one pass", "one adapter", "≤ 1.2 ×")},
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "load",
        {
            "load": _ms("load into a live PEFT model", "load_adapter", "≤ 15 ms"),
            "hotswap": _ms("hotswap", "read and copy", "≤ 5 ms"),
            "hotswap-peft": _ms("hotswap", "PEFT's hotswap", "≤ 5 ms"),
        },
        small=("--hidden", "64", "--layers", "2", "--rounds", "2"),
    ),
    Bench(
        "fingerprint",
        {"fingerprint": Row("fingerprint --full", "sha256sum twice, all cores", "≤ 1.2 ×")},
        options=("--size", "2432"),
        small=("--size", "64"),
    ),
    Bench(
        "combine",
        {
            "combine-ties_svd": Row("own ties, n = 2, 4096²", "PEFT's ties_svd", "≤ 0.3 s"),
            "combine-dare_ties_svd": Row("own dare_ties, n = 2, 4096²", "PEFT's dare_ties_svd", "≤ 0.3 s"),
        },
        options=("--only", "dense"),
        small=("--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "tiny_jobs",
        {"tiny-jobs": _rate("tiny jobs", "the command", "≥ 5/s")},
        small=("--jobs", "2", "--rounds", "1"),
    ),
    Bench(
        "jobs",
        {
            "merge-job": Row("merge as a job, on a running runner", "the command", "≤ 1.3 ×"),
            "merge-job-start": Row("the same, with the start of a runner", "the command", ""),
        },
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="only to see that every bench works")
    parser.add_argument("--only", default="", help="scripts whose names contain one of these, with commas")
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}\n")
    print("| work | peer or limit | its figure | ours | ratio | asked |\n|---|---|---|---|---|---|")
    for bench in BENCHES:
        if any(part in bench.script for part in asked.only.split(",")):
            for line in lines_of(bench, asked.folder, is_small=asked.small):
                print(line, flush=True)
    print(f"\nload after {os.getloadavg()[0]:.1f}")


def lines_of(bench: Bench, folder: Path, *, is_small: bool) -> Iterator[str]:
    """The bench's rows; names those that it did not note on stderr."""
    command = [sys.executable, str(HERE / f"{bench.script}.py"), *bench.options]
    command += [
        *(bench.small if is_small else ()),
        *(("--folder", str(folder)) if bench.takes_folder else ()),
    ]
    with tempfile.NamedTemporaryFile() as figures:
        environment = {**os.environ, "FIGURES": figures.name}
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
        found = [json.loads(line) for line in Path(figures.name).read_text(encoding="utf-8").splitlines()]
    for key, row in bench.rows.items():
        noted = [one for one in found if one["row"] == key]
        if noted:
            yield line_of(row, *([value for one in noted for value in one[who]] for who in ("ours", "peer")))
        else:
            said = (done.stderr or done.stdout).strip().splitlines()[-1:]
            print(f"{bench.script}: no figures for {key}: {' '.join(said)}", file=sys.stderr)


def line_of(row: Row, ours: Sequence[float], peer: Sequence[float]) -> str:
    ratios = [one / other for one, other in zip(ours, peer, strict=True)] if peer else []
    cells = (row.work, row.peer, figure(row, peer), figure(row, ours), spread(ratios), row.target)
    return f"| {' | '.join(cells)} |"


def figure(row: Row, values: Sequence[float]) -> str:
    """The median, and the least and the most in brackets."""
    text = spread([value * row.scale for value in values])
    return f"{text} {row.unit}" if text else ""


def spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    middle, least, most = (f"{value:,.4g}" for value in (median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})" if len(values) > 1 else middle


if __name__ == "__main__":
    main()
