"""Repairs of numbers: a plain LoRA is made, or its rank or dtype changed; each a lazy adapter over a view."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.checks.runtimes.limits import largest_rank
from adaptry.checks.runtimes.rule import CheckSubject
from adaptry.compute.converting.convert import convert, needs_base_values
from adaptry.compute.converting.options import ConvertOptions
from adaptry.compute.converting.resize import ResizeOptions, resize
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import read_tensor, rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, LazyAdapter, ParentAdapter
from adaptry.core.errors import CheckFailed

_LARGEST = {"vllm": 512}
"""Ranks above which an engine takes nothing however it is started."""


def convert_to_lora(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """The plain LoRA that acts as any method does, or the nearest one of the rank or energy asked for."""
    convert_options = ConvertOptions(
        rank=options.rank, energy=options.energy, dtype=options.dtype, other_base=options.other_base
    )
    return convert(
        parent, convert_options, options.conversion_base(reading=needs_base_values(parent, convert_options))
    )


def fold_scales(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Each module's scale in its `lora_B`, where they differ, and `lora_alpha` over `r` the same for all."""
    return convert(
        parent, ConvertOptions(other_base=options.other_base), options.conversion_base(reading=False)
    )


def fold_scales_uniformly(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """As `fold_scales`, all modules of one rank: zeros fill it."""
    convert_options = ConvertOptions(uniform=True, other_base=options.other_base)
    return convert(parent, convert_options, options.conversion_base(reading=False))


def resize_to_limit(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """The nearest update within the rank that the server takes. Raises `CheckFailed` where nothing may be
    lost, or no limit is known.
    """
    limit = _limit(runtime)
    if limit is None:
        raise CheckFailed(f"which rank {runtime} takes is not said: add ,max_lora_rank=N to it")
    if options.exact:
        had = largest_rank(CheckSubject(parent.adapter))
        raise CheckFailed(
            f"{parent.label} has rank {had} and {runtime} takes {limit}, so something would be lost, and"
            " --exact forbids it: start the server with a larger limit, or leave --exact out"
        )
    return resize(parent, ResizeOptions(rank=limit, dtype=options.dtype or "F32"))


def _limit(runtime: Runtime) -> int | None:
    options = [option for option in ENGINES[runtime.engine].options if option.name.endswith("lora_rank")]
    said = [number for option in options if (number := runtime.number(option.name) or option.default)]
    is_said = any(option.name in runtime.options for option in options)
    return said[0] if said and (is_said or runtime.engine not in _LARGEST) else _LARGEST.get(runtime.engine)


def write_float32(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """Tensors of float64 as float32, which PEFT makes of them when it loads them."""
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
    """Without the embeddings that PEFT saved beside their update, which are the base's own.

    Raises `CheckFailed` where one differs from the base's: then it was trained, or has tokens more.
    """
    checkpoint = options.require_weights(f"comparing the embeddings of {parent.label} with the base's")
    base = options.conversion_base(reading=True)
    assert base is not None
    copies = [extra for extra in parent.adapter.spec.extras if ".base_layer." in extra.tensor]
    for extra in copies:
        name = next(
            (
                name
                for name in checkpoint.tensors
                if name == extra.target or name.endswith(f".{extra.target}")
            ),
            None,
        )
        own = read_tensor(parent.adapter, extra.tensor)
        if (
            name is None
            or own.shape != checkpoint.tensors[name].shape
            or not own.equal(base.read_tensor(name).to(own.dtype))
        ):
            raise CheckFailed(
                f"{parent.label} brings {extra.target}, and it is not the base's: merge it (adaptry merge"
                " --base BASE REF -o DIR)"
            )
    left_out = {extra.tensor for extra in copies}
    return rewrite_adapter(
        parent, {"operation": "copies"}, name=lambda name: None if name in left_out else name
    )
