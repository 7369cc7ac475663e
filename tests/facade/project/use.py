"""A user's program under strict type checking: the parameters and results of every function."""

# pyright: strict

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor

import adaptry
from adaptry import errors


def daily(weights: dict[str, float], folders: list[Path]) -> None:
    with adaptry.connect("http://127.0.0.1:8750", token="secret") as registry:
        assert_type(registry, adaptry.Registry)
        pushed = adaptry.push(registry, "out", "acme/tone", metrics={"accuracy": 0.91}, tags=["calm"])
        assert_type(pushed.version.metrics, dict[str, float])
        assert_type(pushed.is_new, bool)
        version = registry.version("acme/tone@1")
        labels = [found.label for found in adaptry.search(registry, "rank<=16", limit=3)]
        assert_type(labels, list[str])
        assert_type(adaptry.pull(registry, version, Path("tone")).number, int)
        tensors = adaptry.load(pushed, registry=registry, dtype=torch.bfloat16)
        assert_type(tensors["name"], Tensor)
        placed = adaptry.load("acme/tone@prod", into=torch.nn.Linear(2, 2), trainable=True)
        assert_type(placed.name, str)
        checked = adaptry.check("./out", base="org/model", engines="vllm", registry=registry)
        assert_type(checked.is_blocked, bool)
        assert_type([finding.code for finding in checked.findings], list[str])
        found = adaptry.compare(version, adaptry.open_dir("out"), weights=True, registry="./registry")
        assert_type([each.what for each in found.differences], list[str])
        planned = adaptry.merge(weights, base="./base")
        assert_type(planned.size, int)
        merged = adaptry.merge(folders, base=Path("base"), to="merged", dtype=torch.float16, progress=False)
        assert_type(merged.folder, Path)
        assert_type(adaptry.combine("acme/tone", method="ties", parameters={"density": 0.5}).memory, int)
        made = adaptry.stack([(version, 0.5), "./out"], to="acme/both", registry=registry)
        assert_type(made.outcome.error, float)
        adaptry.convert("./loha", to="acme/as-lora", rank=8, layout=None)
        assert_type([point.kept for point in adaptry.resize("./out").points], list[float])
        adaptry.resize("./out", to="./small", allowed=[8, 16])
        assert_type(adaptry.export("./out", engine="vllm").format, str)
        assert_type(adaptry.export("./out", engine="vllm", to="./out-vllm").result.format, str)
        assert_type(adaptry.promote(registry, version, to="staging", expect=1).was, int | None)
        assert_type(adaptry.rollback(registry, "acme/tone@prod").alias.number, int)
        assert_type(adaptry.revoke(registry, version, reason="leaks names").version.label, str)
        assert_type(adaptry.lineage(registry, "acme/both").refs, tuple[str, ...])


def shown(text: str, done: int, total: int) -> None:
    print(text, done, total)


def careful(registry: adaptry.Registry) -> str:
    try:
        return adaptry.pull(registry, adaptry.Ref.parse("acme/tone@3"), progress=shown).label
    except errors.NotFound as error:
        return error.message
    except adaptry.errors.AdaptryError as error:
        return error.code
