"""Compares our verdicts about adapters in engines with the engines' actual results.

The exit code is 1 if we call an adapter served as trained and an engine does not serve it so, or if we refuse
at least one percent of the adapters that an engine serves as trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch

from .engines import ENGINES
from .run import is_installed, make_known, run
from .table import is_sound, table_of, write

parser = argparse.ArgumentParser(prog="python -m tests.runtimes.matrix", description=__doc__)
names = ["peft", *ENGINES]
parser.add_argument("--engine", action="append", choices=names, help="only this engine (repeatable)")
parser.add_argument("--seeds", type=int, default=300, help="number of generated adapters (default 300)")
parser.add_argument("--first-seed", type=int, default=0, help="seed of the first of them (default 0)")
parser.add_argument(
    "--write",
    type=Path,
    metavar="FILE",
    help="write each engine's counts to FILE, as JSON, in place of its earlier ones",
)
parser.add_argument(
    "--keep",
    type=Path,
    metavar="FOLDER",
    help="keep the engines' replies in FOLDER, and do not ask again for those that are there",
)
asked = parser.parse_args()

torch.set_num_threads(1)
seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
wrong = []
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    start = time.monotonic()
    adapters = make_known(folder, seeds)
    sys.stderr.write(f"{len(adapters.specimens)} adapters in {time.monotonic() - start:.0f} s\n")
    for engine in asked.engine or names:
        if not is_installed(engine):
            sys.stderr.write(f"{engine}: not installed (make environments)\n")
            continue
        start = time.monotonic()
        try:
            results = run(engine, adapters, folder, asked.keep)
        except Exception:  # noqa: BLE001  (the other engines are asked all the same)
            sys.stderr.write(f"{engine}: could not be asked\n{traceback.format_exc()}")
            wrong.append(engine)
            continue
        for one in results:
            if one.kind != "agreed":
                sys.stdout.write(f"{engine}: {one}\n")
        counts = table_of({engine: results}, seeds)
        sys.stdout.write(f"{engine}: {counts[engine]}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{engine}: {time.monotonic() - start:.0f} s\n")
        if asked.write:
            write(counts, asked.write)
        if not is_sound(counts):
            wrong.append(engine)
sys.exit(1 if wrong else 0)
