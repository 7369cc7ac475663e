"""Repairs that change numbers: conversion to a plain LoRA, to another rank or dtype; each is a lazy
adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.checks.runtimes.option_conditions import largest_rank
from adaptry.checks.runtimes.rule import CheckSubject
from adaptry.compute.conversion.convert import convert, needs_base_values
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.conversion.resize import ResizeOptions, resize
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import read_tensor, rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_MAX_RANK = {"vllm": 512}
"""The maximum ranks of engines, whatever their options."""


def convert_to_lora(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """The plain LoRA with the effect of any method, or the closest one with the requested rank or energy."""
    convert_options = ConvertOptions(
        rank=options.rank, energy=options.energy, dtype=options.dtype, other_base=options.other_base
    )
    return convert(
        parent, convert_options, options.conversion_base(reading=needs_base_values(parent, convert_options))
    )


def fold_scales(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Folds each module's scale into its `lora_B` if scales differ, so that `lora_alpha / r` is the same for
    all modules.
    """
    return convert(
        parent, ConvertOptions(other_base=options.other_base), options.conversion_base(reading=False)
    )


def fold_scales_uniformly(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Like `fold_scales`, with one rank for all modules, padded with zeros."""
    convert_options = ConvertOptions(uniform=True, other_base=options.other_base)
    return convert(parent, convert_options, options.conversion_base(reading=False))


def resize_to_limit(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """The closest update within the server's maximum rank. Raises `CheckFailed` if nothing may be lost, or
    the limit is unknown.
    """
    limit = _limit(runtime)
    if limit is None:
        raise CheckFailed(f"the maximum rank of {runtime} is unknown: add ,max_lora_rank=N to it")
    if options.exact:
        had = largest_rank(CheckSubject(parent.adapter))
        raise CheckFailed(
            f"{parent.label} has rank {had}, but {runtime} supports {limit}, so something would be lost,"
            " which"
            " --exact forbids: start the server with a larger limit, or omit --exact"
        )
    return resize(parent, ResizeOptions(rank=limit, dtype=options.dtype or "F32"))


def _limit(runtime: Runtime) -> int | None:
    options = [option for option in ENGINES[runtime.engine].options if option.name.endswith("lora_rank")]
    limits = [number for option in options if (number := runtime.number(option.name) or option.default)]
    is_given = any(option.name in runtime.options for option in options)
    return (
        limits[0]
        if limits and (is_given or runtime.engine not in _MAX_RANK)
        else _MAX_RANK.get(runtime.engine)
    )


def write_float32(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Writes float64 tensors as float32, to which PEFT converts them at load."""
    import torch

    copied = rewrite_adapter(parent, {"operation": "dtype"})

    def compute() -> Iterator[ComputedModule]:
        for module in copied.compute():
            tensors = {
                name: tensor.float() if tensor.dtype is torch.float64 else tensor
                for name, tensor in module.tensors.items()
            }
            yield replace(module, tensors=tensors)

    return replace(copied, compute=compute)


def drop_embedding_copies(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Removes the copies of the base's embeddings that PEFT saved with their update.

    Raises `CheckFailed` if a copy differs from the base's: then it was trained, or has more tokens.
    """
    options.require_weights(f"comparing the embeddings of {parent.label} with the base's")
    base = options.conversion_base(reading=True)
    assert base is not None
    copies = [extra for extra in parent.adapter.spec.extras if ".base_layer." in extra.tensor]
    names = ParameterNames(base.record.tensors, base.record.facts)
    for extra in copies:
        stored = names.find(extra.target).tensor
        own = read_tensor(parent.adapter, extra.tensor)
        if (
            stored is None
            or own.shape != stored.shape
            or not own.equal(base.read_tensor(stored.parts[0]).to(own.dtype))
        ):
            raise CheckFailed(
                f"{parent.label} contains {extra.target}, which differs from the base's: merge it (adaptry"
                " merge"
                " --base BASE REF -o DIR)"
            )
    left_out = {extra.tensor for extra in copies}
    return rewrite_adapter(
        parent, {"operation": "copies"}, name=lambda name: None if name in left_out else name
    )
