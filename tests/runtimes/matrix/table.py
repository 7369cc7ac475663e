"""The counts of one run, as `registry/adaptry/checks/runtimes/matrix.json` keeps them for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .engines import ENGINES
from .verdicts import Judged, counts

MAX_FALSE_ALARMS = 0.01
_OF_ALL = (range(340), range(2000, 2300))
REPAIRED_ON = {
    **dict.fromkeys(["vllm", "sglang", "lmdeploy"], (range(3000, 3300),)),
    **dict.fromkeys(["peft", "llama.cpp"], (range(3000, 3300), range(7000, 7300))),
}
"""Seeds whose adapters showed what an engine's rules lacked, beside `_OF_ALL`. Others are fresh."""


def table_of(results: Mapping[str, Sequence[Judged]], seeds: range) -> dict[str, Any]:
    """By engine. (`Any`: JSON.)"""
    versions = {name: engine.version for name, engine in ENGINES.items()} | {"peft": version("peft")}
    numbers = [seeds.start, seeds.stop - 1]
    return {
        name: {
            "version": versions[name],
            "seeds": numbers,
            "fresh": _is_fresh(name, seeds),
            **counts(judged),
        }
        for name, judged in results.items()
    }


def _is_fresh(engine: str, seeds: range) -> bool:
    repaired = (*_OF_ALL, *REPAIRED_ON.get(engine, ()))
    return not any(seed in one for seed in seeds for one in repaired)


def is_sound(table: Mapping[str, Any]) -> bool:
    """Whether there are no misses, and fewer false alarms than one in a hundred. (`Any`: JSON.)"""
    return all(
        not row["misses"] and row["false_alarms"] < MAX_FALSE_ALARMS * row["adapters"]
        for row in table.values()
    )


def write(table: Mapping[str, Any], file: Path) -> None:
    """Writes the rows of this run, and keeps those of engines that it did not run. Earlier counts on the same
    seeds, from when these were fresh, are kept as `while_fresh`. (`Any`: JSON.)
    """
    kept = json.loads(file.read_text()) if file.exists() else {}
    rows = {name: {**row, **_while_fresh(kept.get(name, {}), row)} for name, row in table.items()}
    file.write_text(json.dumps({**kept, **rows}, indent=2) + "\n")


def _while_fresh(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    if new["fresh"] or old.get("seeds") != new["seeds"]:
        return {}
    if old["fresh"]:
        return {"while_fresh": {key: old[key] for key in ("misses", "false_alarms")}}
    return {"while_fresh": old["while_fresh"]} if "while_fresh" in old else {}
