"""Conditions on tensors' names as an engine reads them, which may be otherwise than PEFT does.

An engine cuts a module's path out of a name by a rule of its own (a `NameReader`), and looks the path up in
its model. A prefix more or less than PEFT's may be right for it, and what PEFT takes may be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Set

from adaptry.adapters.methods.extras import PREFIX
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.conditions import is_wrapped
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

NameReader = Callable[[str], str | None]
"""The module's path that an engine takes a factor's name for; None where it is no factor's for it."""

_FACTOR = re.compile(r"(?P<path>.+)\.(?:lora_[AB]\.weight|lora_embedding_[AB])")
_NAMED_FACTOR = re.compile(r"(?P<path>.+)\.lora_[AB](?:\.[^.]+)?\.weight")
_WHOLE_MODEL = re.compile(r"(?:model|transformer)\.(?P<rest>.+)")


def one_prefix(name: str) -> str | None:
    """PEFT's prefix at the beginning, or none; an adapter's name may be inside (mistral.rs)."""
    match = _NAMED_FACTOR.fullmatch(name)
    return match["path"].removeprefix(PREFIX) if match else None


def any_prefixes(name: str) -> str | None:
    """PEFT's prefix taken out wherever it is, and as often (vLLM)."""
    match = _FACTOR.fullmatch(name)
    return match["path"].replace(PREFIX, "") if match else None


def any_prefixes_of_models(name: str) -> str | None:
    """`any_prefixes`, and without the names of the whole model and of its language part (llama.cpp)."""
    path = any_prefixes(name)
    return path if path is None else path.replace("language_model.", "").removeprefix("model.")


def no_factor(read: NameReader) -> Condition:
    """Tensors that are no factor's, factors of names that the engine does not take, and those without their
    other half."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        kinds = ("magnitude", "B_bias")  # which rules of their own find
        parts = [
            tensor
            for module in subject.spec.modules
            for role, tensor in module.tensors.items()
            if role not in kinds
        ]
        names = tuple(
            name
            for name in (*subject.spec.unclaimed, *parts)
            if read(name) is None or _is_lone(subject, name)
        )
        if not names:
            return None
        return ConditionMatch(
            f"{format_count(len(names), 'tensor')} beside whole pairs of factors:"
            f" {shorten_names(fold_layer_numbers(names))}",
            names,
        )

    return found


def other_prefix(read: NameReader) -> Condition:
    """Factors that the engine takes under a prefix that is not PEFT's."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        names = tuple(
            name for name in subject.spec.unclaimed if read(name) is not None and not _is_lone(subject, name)
        )
        if not names:
            return None
        return ConditionMatch(
            f"{format_count(len(names), 'name')} without PEFT's prefix or with more than that,"
            f" such as {names[0]}",
            names,
        )

    return found


def _is_lone(subject: CheckSubject, name: str) -> bool:
    """Whether it is a factor named as PEFT has it, which its other half or its shape makes no rule know."""
    is_named = _FACTOR.fullmatch(name) is not None and name.startswith(PREFIX)
    return is_named and not name.startswith(PREFIX * 2) and name in subject.spec.unclaimed


def not_in_base(read: NameReader) -> Condition:
    """Factors that the engine takes, and a known base stores nothing under their modules' names."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        if subject.base is None:
            return None
        names = {name.rpartition(".")[0] for name in subject.base.tensors}
        known = {read(f"{name}.lora_A.weight") or name for name in names}
        paths = tuple(
            path
            for path in dict.fromkeys(_paths(subject, read))
            if path not in known and _without_task(path, known) not in known and not is_wrapped(path)
        )
        if not paths:
            return None
        return ConditionMatch(
            f"the base stores nothing under {shorten_names(fold_layer_numbers(paths))}", paths
        )

    return found


def _paths(subject: CheckSubject, read: NameReader) -> Iterator[str]:
    claimed = (
        tensor
        for module in subject.spec.modules
        if module.kind == "linear"
        for tensor in module.tensors.values()
    )
    for name in (*claimed, *subject.spec.unclaimed):
        if (path := read(name)) is not None:
            yield path


def _without_task(path: str, names: Set[str]) -> str:
    """The name in a checkpoint of the bare model, which has no name for the whole of it."""
    match = _WHOLE_MODEL.fullmatch(path)
    whole = path.partition(".")[0] + "."
    return match["rest"] if match and not any(name.startswith(whole) for name in names) else path
