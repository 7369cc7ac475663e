"""Repairs that make a plain LoRA or change its rank, and those that touch the config alone: each a lazy
adapter over a view."""

from __future__ import annotations

from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.checks.runtimes.limits import largest_rank
from adaptry.checks.runtimes.rule import CheckSubject
from adaptry.compute.converting.convert import convert, needs_base_values
from adaptry.compute.converting.options import ConvertOptions
from adaptry.compute.converting.resize import ResizeOptions, resize
from adaptry.compute.exporting.options import ExportOptions
from adaptry.compute.exporting.rewrite import read_tensor, rewrite_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import LazyAdapter, ParentAdapter
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


def list_targets(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """The modules as a list of names, where a pattern or a word was in its place."""
    spec = parent.adapter.spec
    return rewrite_adapter(
        parent, {"operation": "config"}, {"target_modules": sorted(spec.targets), "exclude_modules": None}
    )


def clear_saved_modules(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """`modules_to_save` emptied. Raises `CheckFailed` where the file has one of them after all."""
    if parent.adapter.spec.extras:
        first = parent.adapter.spec.extras[0].target
        raise CheckFailed(
            f"{parent.label} brings {first} whole, which modules_to_save stands for: merge it instead"
        )
    return rewrite_adapter(parent, {"operation": "config"}, {"modules_to_save": None})


def clear_fan_in_fan_out(parent: ParentAdapter, runtime: Runtime, options: ExportOptions) -> LazyAdapter:
    """`fan_in_fan_out` off. A LoRA's factors are [r, in] and [out, r] whichever way round the base has its
    weight; the field tells PEFT to turn the product, which it also does unasked for a Conv1D (PEFT
    `tuners/lora/model.py`).
    """
    return rewrite_adapter(parent, {"operation": "config"}, {"fan_in_fan_out": False})


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
