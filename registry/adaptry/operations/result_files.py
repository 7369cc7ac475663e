"""Finds results files in a folder, and the samples files of each.

It reads only names and the head of a README, since every push calls it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from adaptry.core.lazy_dataclass import dataclass

_NAMES = (
    "results_*.json",
    "samples_*.jsonl",
    "trainer_state.json",
    "wandb-summary.json",
    ".eval_results/*.y*ml",
)
_README = "README.md"
_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class ResultFiles:
    """A results file, and the samples files of the same run by task."""

    results: Path
    samples: dict[str, Path]


def find_result_files(folder: Path, *, below: bool = False) -> list[Path]:
    """The results files in a folder, in order; with `below`, also those in its subfolders: lm-eval makes a
    folder for each model.
    """
    patterns = (*_NAMES, *(f"*/{name}" for name in _NAMES[:2] if below))
    found = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    readme = folder / _README
    if readme.is_file():
        with readme.open("rb") as file:
            if b"model-index" in file.read(_HEAD):
                found.add(readme)
    return sorted(found)


def group_by_run(paths: Iterable[Path]) -> tuple[ResultFiles, ...]:
    """Each results file with its samples files. Raises `Invalid` for samples without results."""
    from adaptry.core.errors import Invalid
    from adaptry.core.evidence.lm_eval import results_time, samples_of

    results: list[ResultFiles] = []
    by_run: dict[tuple[Path, str], ResultFiles] = {}
    waiting: list[tuple[Path, str, str]] = []
    for path in dict.fromkeys(paths):
        if named := samples_of(path.name):
            waiting.append((path, *named))
            continue
        files = ResultFiles(path, {})
        results.append(files)
        if time := results_time(path.name):
            by_run[path.parent, time] = files
    for path, task, time in waiting:
        run = by_run.get((path.parent, time))
        if run is None:
            raise Invalid(
                f"{path.name} has per-sample values; add it together with results_{time}.json of the same run"
            )
        run.samples[task] = path
    return tuple(results)
