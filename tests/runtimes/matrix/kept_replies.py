"""Engines' replies, stored in a folder, so that an interrupted run continues, and changed rules are compared
with stored replies.

The key of a reply is the engine's name and version, the base and the adapter's bytes, so that a changed
adapter is tested again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..cases import Base
from .engines import Engine, Reply

BATCH = 100
"""Number of adapters after which replies are stored; each batch restarts the engine."""


def replies_of(
    engine: Engine, base: Base, adapters: Sequence[Path], folder: Path, kept: Path | None
) -> list[Reply]:
    """The replies in order; `folder` is for the engine's files, and `kept` for the replies of this run and of
    others.
    """
    if kept is None:
        return engine.replies(base, adapters, folder)
    kept.mkdir(parents=True, exist_ok=True)
    file = kept / f"{engine.name} {engine.version}.jsonl"
    digests = [_digest(base.folder, adapter) for adapter in adapters]
    found = dict(_read(file))
    missing = [(adapter, key) for adapter, key in zip(adapters, digests, strict=True) if key not in found]
    _remove_partial_line(file)
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        place = folder / str(start)
        place.mkdir()
        answers = engine.replies(base, [adapter for adapter, _ in batch], place)
        keys = [key for _, key in batch]
        with file.open("a") as lines:
            lines.writelines(_line(key, reply) for key, reply in zip(keys, answers, strict=True))
        found |= zip(keys, answers, strict=True)
    return [found[key] for key in digests]


def _digest(*folders: Path) -> str:
    """Of every file in them, by name."""
    hashed = hashlib.sha256()
    for folder in folders:
        for file in sorted(folder.iterdir()):
            hashed.update(f"{file.name}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return hashed.hexdigest()


def _line(key: str, reply: Reply) -> str:
    odds = None if reply.odds is None else reply.odds.tolist()
    return json.dumps({"key": key, "refused": reply.refused, "when": reply.when, "odds": odds}) + "\n"


def _read(file: Path) -> Iterator[tuple[str, Reply]]:
    """All lines, except for a last one that was cut off."""
    for line in file.read_text().splitlines(keepends=True) if file.exists() else ():
        if line.endswith("\n"):
            one = json.loads(line)
            odds = None if one["odds"] is None else torch.tensor(one["odds"])
            yield one["key"], Reply(one["refused"], one["when"], odds)


def _remove_partial_line(file: Path) -> None:
    """Removes a last line that was cut off, so that the next one begins a line."""
    if file.exists():
        text = file.read_text()
        file.write_text(text[: text.rfind("\n") + 1])
