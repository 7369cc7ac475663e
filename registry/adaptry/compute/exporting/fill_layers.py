"""Adds zero updates for modules that an engine requires but the adapter lacks.

LoRAX, TGI and LMDeploy require a module in every layer or in none, and SGLang requires queries, keys and
values together. A zero update changes nothing, but makes the module exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.runtimes import Runtime
from adaptry.checks.runtimes.packed_modules import missing_packed_modules
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_LAYER = re.compile(r"(?P<before>.*?\.|)(?P<number>\d+)\.(?P<after>.+)")


def fill_missing_layers(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Adds a pair of zero factors to each layer that lacks a module that another layer has."""
    adapter = parent.adapter
    known = options.record.facts.get("layers") if options.record else None
    lacking = dict(_lacking(adapter.spec.modules, known if isinstance(known, int) else None))
    return _filled(parent, {path: (like, like.fan_out) for path, like in lacking.items()})


def fill_packed_modules(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Adds a pair of zero factors for modules that are packed with an existing one. Raises `CheckFailed` if
    the base lacks them, or is unknown.
    """
    record = options.require_record("adding modules that are packed with another")
    lacking: dict[str, tuple[ModuleSpec, int]] = {}
    for path, like in missing_packed_modules(parent.adapter.spec.modules, record):
        tensor = record.tensors.get(f"{path}.weight")
        if tensor is None:
            raise CheckFailed(
                f"{parent.label} changes {like.path}, but the base has no {path}: merge it instead"
            )
        lacking[path] = (like, tensor.shape[0])
    return _filled(parent, lacking)


def _filled(parent: ParentAdapter, lacking: Mapping[str, tuple[ModuleSpec, int]]) -> LazyAdapter:
    """The adapter with zero factors for `lacking`, which has by path a module with the same inputs and type,
    and the number of outputs.
    """
    adapter = parent.adapter
    lazy = rewrite_adapter(parent, {"operation": "fill"}, _targets(adapter.spec.modules, lacking))
    rank = adapter.config.rank()
    names = tuple(name for path in lacking for name in _names(path))

    def make() -> Iterator[ComputedModule]:
        import torch

        from adaptry.compute.tensors.dtypes import torch_dtype

        yield from lazy.compute()
        for path, (like, fan_out) in lacking.items():
            dtype = torch_dtype(adapter.tensors[like.tensors["A"]].dtype)
            sides = (rank, like.fan_in), (fan_out, rank)
            zeros = [torch.zeros(shape, dtype=dtype) for shape in sides]
            yield ComputedModule(path, dict(zip(_names(path), zeros, strict=True)))

    return replace(lazy, names=(*lazy.names, *names), compute=make)


def _lacking(modules: tuple[ModuleSpec, ...], layers: int | None) -> Iterator[tuple[str, ModuleSpec]]:
    """Missing paths, each with an existing module of the same name."""
    found: dict[tuple[str, str], dict[int, ModuleSpec]] = {}
    for module in modules:
        if match := _LAYER.fullmatch(module.path):
            found.setdefault((match["before"], match["after"]), {})[int(match["number"])] = module
    count = layers or max((max(numbers) + 1 for numbers in found.values()), default=0)
    for (before, after), numbers in found.items():
        for number in range(count):
            if number not in numbers:
                yield f"{before}{number}.{after}", next(iter(numbers.values()))


def _names(path: str) -> tuple[str, str]:
    return f"{PREFIX}{path}.lora_A.weight", f"{PREFIX}{path}.lora_B.weight"


def _targets(modules: tuple[ModuleSpec, ...], lacking: Iterable[str]) -> dict[str, object]:
    """`target_modules` as last names, since every layer has them now."""
    short = sorted({path.rpartition(".")[2] for path in (*lacking, *(module.path for module in modules))})
    return {
        "target_modules": short,
        "layers_to_transform": None,
        "layers_pattern": None,
        "exclude_modules": None,
    }
