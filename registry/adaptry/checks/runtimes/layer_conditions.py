"""Conditions on where names put tensors: in which layer, with PEFT's prefix, beside the other half or alone.

For engines that look no further than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.spec import ExtraWeight
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.conditions import last_name, other_tensors
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

_LAYER = re.compile(r"layers\.(\d+)\.")
_FACTOR = re.compile(r"base_model\.model\..+\.lora_[AB]\.weight")
_ANY_FACTOR = re.compile(r".+\.lora_[AB](?:\.[^.]+)?\.weight")


def not_in_its_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules of a layer that a known base does not have, or of a name that this layer has not."""
    if subject.base is None:
        return None
    known = {_place(name.rpartition(".")[0]) for name in subject.base.tensors}
    wrong = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear" and _LAYER.search(module.path) and _place(module.path) not in known
    ]
    return (
        ConditionMatch(
            f"the base has no {shorten_names(fold_layer_numbers(wrong))} in that layer", tuple(wrong)
        )
        if wrong
        else None
    )


def parameters_elsewhere(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Fused experts that the base has under another name on disk. Only where the base is known."""
    if subject.base is None:
        return None
    wrong = [
        module.path
        for module in subject.spec.modules
        if module.kind == "parameter"
        and not any(name.startswith(f"{_bare(module.path)}.") for name in subject.base.tensors)
    ]
    return (
        ConditionMatch(
            f"the base stores nothing under {shorten_names(fold_layer_numbers(wrong))}", tuple(wrong)
        )
        if wrong
        else None
    )


def replaced_in_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules inside a layer: norms, routers."""
    return _replaced(subject, lambda extra: bool(_LAYER.search(extra.target)))


def replaced_beside_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules outside the layers (a head, embeddings), but for copies that PEFT keeps by an update."""
    return _replaced(
        subject, lambda extra: not _LAYER.search(extra.target) and ".base_layer." not in extra.tensor
    )


def without_prefix(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors that are not called as PEFT has it, for an engine that looks at the layer and the last name."""
    names = [name for name in subject.spec.unclaimed if _is_misnamed(name)]
    return (
        ConditionMatch(
            f"{format_count(len(names), 'name')} that PEFT drops, such as {names[0]}", tuple(names)
        )
        if names
        else None
    )


def beyond_prefix(*, in_layers: bool | None = None) -> Condition:
    """`other_tensors`, but for factors that are only called otherwise than by PEFT: all, or by whether in
    layers."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        every = other_tensors(subject, runtime)
        names = [name for name in every.modules if not _is_misnamed(name)] if every else []
        if in_layers is not None:
            names = [name for name in names if bool(_LAYER.search(name)) is in_layers]
        return _beside(names)

    return found


def lone_factors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors without their other half."""
    names = [name for name in subject.spec.unclaimed if _FACTOR.fullmatch(name)]
    return (
        ConditionMatch(f"{shorten_names(fold_layer_numbers(names))} has no other half", tuple(names))
        if names
        else None
    )


def no_factors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`other_tensors`, but for lone factors."""
    every = other_tensors(subject, runtime)
    names = [name for name in every.modules if not _FACTOR.fullmatch(name)] if every else []
    return _beside(names)


def _is_misnamed(name: str) -> bool:
    """Whether it is a factor without PEFT's prefix, with more than that, or with an adapter's name inside."""
    is_plain = _FACTOR.fullmatch(name) and not name.startswith(PREFIX * 2)
    return _ANY_FACTOR.fullmatch(name) is not None and not is_plain


def _beside(names: list[str]) -> ConditionMatch | None:
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'tensor')} beside the factors:"
        f" {shorten_names(fold_layer_numbers(names))}",
        tuple(names),
    )


def _replaced(subject: CheckSubject, chosen: Callable[[ExtraWeight], bool]) -> ConditionMatch | None:
    kinds = ("module", "saved_embedding", "norm")
    targets = [extra.target for extra in subject.spec.extras if extra.kind in kinds and chosen(extra)]
    return (
        ConditionMatch(f"it replaces {shorten_names(fold_layer_numbers(targets))}", tuple(targets))
        if targets
        else None
    )


def _bare(path: str) -> str:
    return path.replace(".base_layer", "")


def _place(path: str) -> tuple[str, str]:
    """The number of the layer and the last name: all that the engine looks at."""
    match = _LAYER.search(path)
    return (match[1] if match else "", last_name(path))
