"""Conditions of an engine that has several of the base's weights as one, and finds modules by layer and last name.

Queries, keys and values are one weight there, gate and up projection another. An adapter of some of them is put together with
zeros in the place of the others, as far as the engine thought of that; what it did not think of is in `NEEDED`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from adaptry.adapter.spec import ExtraWeight, ModuleSpec
from adaptry.checks.runtimes.conditions import last_name, other_tensors
from adaptry.checks.runtimes.rule import Condition, Found, Subject
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.wording import counted, folded, shortened
from adaptry.fingerprint import BaseRecord

NEEDED: Mapping[str, tuple[str, ...]] = {
    "q_proj": ("v_proj",),
    "k_proj": ("q_proj", "v_proj"),
    "v_proj": ("q_proj",),
    "up_proj": ("gate_proj",),
}
"""By the last name of a module: which others the same layer has to have."""
_LAYER = re.compile(r"layers\.(\d+)\.")
_FACTOR = re.compile(r"base_model\.model\..+\.lora_[AB]\.weight")
_UNPREFIXED = re.compile(r"(?!base_model\.).+\.lora_[AB]\.weight")


def lacking_parts(
    modules: tuple[ModuleSpec, ...], base: BaseRecord | None
) -> Iterator[tuple[str, ModuleSpec]]:
    """Paths that `NEEDED` asks for and that are not there, each with a module that has the same inputs.

    A base without a gate has its up projection alone, and then nothing is lacking.
    """
    paths = {module.path for module in modules}
    seen = set[str]()
    for module in modules:
        parent, _, last = module.path.rpartition(".")
        for name in NEEDED.get(last, ()):
            path = f"{parent}.{name}"
            if path in paths | seen or (
                name == "gate_proj" and base and f"{path}.weight" not in base.tensors
            ):
                continue
            seen.add(path)
            yield path, module


def parts_missing(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules of a layer without those that are one weight with them."""
    missing = dict(lacking_parts(subject.spec.modules, subject.base))
    if not missing:
        return None
    like = sorted({last_name(module.path) for module in missing.values()})
    return Found(
        f"it changes {shortened(like)} of a layer without {shortened(folded(list(missing)))}", tuple(missing)
    )


def other_ranks(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules whose rank is not the config's `r`."""
    rank = subject.config.rank()
    other = [
        module.path for module in subject.spec.modules if module.kind != "parameter" and module.rank != rank
    ]
    return (
        Found(f"r is {rank}, and {shortened(folded(other))} has another rank", tuple(other))
        if other
        else None
    )


def not_in_its_layers(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules of a layer that the base does not have, or of a name that this layer has not. Only where the base is known."""
    if subject.base is None:
        return None
    known = {_place(name.rpartition(".")[0]) for name in subject.base.tensors}
    wrong = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear" and _LAYER.search(module.path) and _place(module.path) not in known
    ]
    return Found(f"the base has no {shortened(folded(wrong))} in that layer", tuple(wrong)) if wrong else None


def replaced_in_layers(subject: Subject, runtime: Runtime) -> Found | None:
    """Whole modules inside a layer: norms, routers."""
    return _replaced(subject, lambda extra: bool(_LAYER.search(extra.target)))


def replaced_beside_layers(subject: Subject, runtime: Runtime) -> Found | None:
    """Whole modules outside the layers, but for copies that PEFT keeps beside an update: a head, a table of embeddings."""
    return _replaced(
        subject, lambda extra: not _LAYER.search(extra.target) and ".base_layer." not in extra.tensor
    )


def without_prefix(subject: Subject, runtime: Runtime) -> Found | None:
    """Factors whose names lack PEFT's prefix, for an engine that wants none."""
    names = [name for name in subject.spec.unclaimed if _UNPREFIXED.fullmatch(name)]
    return (
        Found(f"{counted(len(names), 'name')} without PEFT's prefix, such as {names[0]}", tuple(names))
        if names
        else None
    )


def beyond_prefix(*, in_layers: bool | None = None) -> Condition:
    """`other_tensors`, but for factors that only lack PEFT's prefix: all of them, or those inside the layers or outside."""

    def found(subject: Subject, runtime: Runtime) -> Found | None:
        every = other_tensors(subject, runtime)
        names = [name for name in every.modules if not _UNPREFIXED.fullmatch(name)] if every else []
        if in_layers is not None:
            names = [name for name in names if bool(_LAYER.search(name)) is in_layers]
        return _beside(names)

    return found


def parameters_beyond(*ends: str) -> Condition:
    """`target_parameters` with a name that ends in none of these."""

    def found(subject: Subject, runtime: Runtime) -> Found | None:
        other = [name for name in subject.config.names("target_parameters") if not name.endswith(ends)]
        return Found(f"target_parameters names {shortened(other)}") if other else None

    return found


def parameters_elsewhere(subject: Subject, runtime: Runtime) -> Found | None:
    """Fused experts that the base has under another name on disk. Only where the base is known."""
    if subject.base is None:
        return None
    wrong = [
        module.path
        for module in subject.spec.modules
        if module.kind == "parameter"
        and not any(name.startswith(f"{_bare(module.path)}.") for name in subject.base.tensors)
    ]
    return Found(f"the base stores nothing under {shortened(folded(wrong))}", tuple(wrong)) if wrong else None


def lone_factors(subject: Subject, runtime: Runtime) -> Found | None:
    """Factors without their other half."""
    names = [name for name in subject.spec.unclaimed if _FACTOR.fullmatch(name)]
    return Found(f"{shortened(folded(names))} has no other half", tuple(names)) if names else None


def no_factors(subject: Subject, runtime: Runtime) -> Found | None:
    """`other_tensors`, but for lone factors."""
    every = other_tensors(subject, runtime)
    names = [name for name in every.modules if not _FACTOR.fullmatch(name)] if every else []
    return _beside(names)


def declared_by_path(subject: Subject, runtime: Runtime) -> Found | None:
    """Several names in `target_modules` that end alike, as whole paths do."""
    listed = subject.config.fields.get("target_modules")
    names = (
        [name.rpartition(".")[2] for name in listed if isinstance(name, str)]
        if isinstance(listed, list)
        else []
    )
    twice = sorted({name for name in names if names.count(name) > 1})
    return Found(f"target_modules names several paths that end in {shortened(twice)}") if twice else None


def undeclared(subject: Subject, runtime: Runtime) -> Found | None:
    """Modules that the list in `target_modules` does not name."""
    listed = subject.config.fields.get("target_modules")
    if not isinstance(listed, list) or not listed:
        return None
    ends = tuple(f".{name}" for name in listed if isinstance(name, str))
    other = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear" and not f".{module.path}".endswith(ends)
    ]
    return Found(f"target_modules does not name {shortened(folded(other))}", tuple(other)) if other else None


def _beside(names: list[str]) -> Found | None:
    if not names:
        return None
    return Found(
        f"{counted(len(names), 'tensor')} beside the factors: {shortened(folded(names))}", tuple(names)
    )


def _replaced(subject: Subject, chosen: Callable[[ExtraWeight], bool]) -> Found | None:
    kinds = ("module", "saved_embedding", "norm")
    targets = [extra.target for extra in subject.spec.extras if extra.kind in kinds and chosen(extra)]
    return Found(f"it replaces {shortened(folded(targets))}", tuple(targets)) if targets else None


def _bare(path: str) -> str:
    return path.replace(".base_layer", "")


def _place(path: str) -> tuple[str, str]:
    """The number of the layer and the last name: all that the engine looks at."""
    match = _LAYER.search(path)
    return (match[1] if match else "", last_name(path))
