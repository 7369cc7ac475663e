"""One run: the adapters are made once, and each engine gets them in one process."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..cases import made_base
from .engines import ENGINES
from .generated import generated, named
from .kept_replies import replies_of
from .verdicts import Judged, Known, judged, judged_peft, known

HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
"""vLLM's attention on the CPU takes heads of 32, and none of 16."""


def make_known(folder: Path, seeds: Iterable[int], with_named: bool = True) -> Known:
    """The named variants and one adapter for each seed, on a small Llama."""
    base = made_base(folder / "base", **HEADS)
    (folder / "named").mkdir()
    (folder / "generated").mkdir()
    specimens = named(base, folder / "named") if with_named else []
    found = (generated(base, seed, folder / "generated") for seed in seeds)
    return known(base, [*specimens, *(one for one in found if one is not None)])


def is_installed(engine: str) -> bool:
    return engine == "peft" or bool(ENGINES[engine].python)


def run(name: str, adapters: Known, folder: Path, kept: Path | None = None) -> list[Judged]:
    """Every adapter with one engine that is installed; `peft` is among them. `kept`: a folder of replies."""
    if name == "peft":
        return judged_peft(adapters)
    place = folder / name
    place.mkdir()
    paths = [one.folder for one in adapters.specimens]
    return judged(ENGINES[name], adapters, replies_of(ENGINES[name], adapters.base, paths, place, kept))
