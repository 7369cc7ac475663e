"""Repairs that make a plain LoRA or change its rank, and those that touch the config alone: each a draft over a view."""

from __future__ import annotations

from adaptry.checks.runtimes import ENGINES, Runtime
from adaptry.checks.runtimes.limits import largest_rank
from adaptry.checks.runtimes.rule import Subject
from adaptry.compute.converting.convert import convert, must_read
from adaptry.compute.converting.options import Asked
from adaptry.compute.converting.resize import Goal, resize
from adaptry.compute.exporting.options import Setting
from adaptry.compute.exporting.rewrite import read, rewritten
from adaptry.compute.lazy_adapters.lazy_adapter import Draft, Parent
from adaptry.core.errors import Refused

_LARGEST = {"vllm": 512}
"""Ranks above which an engine takes nothing however it is started."""


def as_lora(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """The plain LoRA that acts as any method does, or the nearest one of the rank or energy that was asked for."""
    asked = Asked(
        rank=setting.rank, energy=setting.energy, dtype=setting.dtype, other_base=setting.other_base
    )
    return convert(parent, asked, setting.ground(reading=must_read(parent, asked)))


def folded(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """Each module's scale in its `lora_B`, where they differ, and `lora_alpha` over `r` the same for all."""
    return convert(parent, Asked(other_base=setting.other_base), setting.ground(reading=False))


def folded_evenly(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """As `folded`, all modules of one rank: zeros fill it."""
    asked = Asked(uniform=True, other_base=setting.other_base)
    return convert(parent, asked, setting.ground(reading=False))


def resized(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """The nearest update within the rank that the server takes. Raises `Refused` where nothing may be lost, or no limit is
    known."""
    limit = _limit(runtime)
    if limit is None:
        raise Refused(f"which rank {runtime} takes is not said: add ,max_lora_rank=N to it")
    if setting.exact:
        had = largest_rank(Subject(parent.adapter))
        raise Refused(
            f"{parent.label} has rank {had} and {runtime} takes {limit}, so something would be lost, and --exact forbids it: "
            "start the server with a larger limit, or leave --exact out"
        )
    return resize(parent, Goal(rank=limit, dtype=setting.dtype or "F32"))


def _limit(runtime: Runtime) -> int | None:
    options = [option for option in ENGINES[runtime.engine].options if option.name.endswith("lora_rank")]
    said = [number for option in options if (number := runtime.number(option.name) or option.default)]
    is_said = any(option.name in runtime.options for option in options)
    return said[0] if said and (is_said or runtime.engine not in _LARGEST) else _LARGEST.get(runtime.engine)


def targets_listed(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """The modules as a list of names, where a pattern or a word was in its place."""
    spec = parent.adapter.spec
    return rewritten(
        parent, {"operation": "config"}, {"target_modules": sorted(spec.targets), "exclude_modules": None}
    )


def nothing_saved_listed(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """`modules_to_save` emptied. Raises `Refused` where the file has one of them after all."""
    if parent.adapter.spec.extras:
        first = parent.adapter.spec.extras[0].target
        raise Refused(
            f"{parent.label} brings {first} whole, which modules_to_save stands for: merge it instead"
        )
    return rewritten(parent, {"operation": "config"}, {"modules_to_save": None})


def plain_sides(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """`fan_in_fan_out` off. A LoRA's factors are [r, in] and [out, r] whichever way round the base has its weight; the field
    tells PEFT to turn the product, which it also does unasked for a Conv1D (PEFT `tuners/lora/model.py`)."""
    return rewritten(parent, {"operation": "config"}, {"fan_in_fan_out": False})


def without_copies(parent: Parent, runtime: Runtime, setting: Setting) -> Draft:
    """Without the embeddings that PEFT saved beside their update, which are the base's own.

    Raises `Refused` where one differs from the base's: then it was trained, or has tokens more.
    """
    checkpoint = setting.weights(f"comparing the embeddings of {parent.label} with the base's")
    ground = setting.ground(reading=True)
    assert ground is not None
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
        own = read(parent.adapter, extra.tensor)
        if (
            name is None
            or own.shape != checkpoint.tensors[name].shape
            or not own.equal(ground.read(name).to(own.dtype))
        ):
            raise Refused(
                f"{parent.label} brings {extra.target}, and it is not the base's: merge it (adaptry merge --base BASE REF -o DIR)"
            )
    left_out = {extra.tensor for extra in copies}
    return rewritten(parent, {"operation": "copies"}, name=lambda name: None if name in left_out else name)
