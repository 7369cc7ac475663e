"""Conditions on the layer that a tensor's name contains, or its lack of one.

For engines that use only the layer and the last part of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from adaptry.adapters.spec import ExtraWeight
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.name_conditions import is_kept_copy
from adaptry.checks.runtimes.rule import CheckSubject, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

_LAYER = re.compile(r"layers\.(\d+)\.")


def not_in_its_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules of a layer that a known base does not have, or with a name that this layer does not have."""
    if subject.base is None:
        return None
    known = {_layer_and_name(name.rpartition(".")[0]) for name in subject.base.tensors}
    wrong = [
        module.path
        for module in subject.spec.modules
        if module.kind == "linear"
        and _LAYER.search(module.path)
        and _layer_and_name(module.path) not in known
    ]
    return (
        ConditionMatch(
            f"the base has no {shorten_names(fold_layer_numbers(wrong))} in that layer", tuple(wrong)
        )
        if wrong
        else None
    )


def parameters_elsewhere(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Fused experts that the base stores under another name. Needs the base."""
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
            f"the base has no tensor under {shorten_names(fold_layer_numbers(wrong))}", tuple(wrong)
        )
        if wrong
        else None
    )


def replaced_in_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules inside a layer: norms, routers."""
    return _replaced(subject, lambda extra: bool(_LAYER.search(extra.target)))


def replaced_beside_layers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules outside the layers (a head, embeddings), except copies that PEFT saves with an update."""
    return _replaced(
        subject, lambda extra: not _LAYER.search(extra.target) and not is_kept_copy(extra.tensor)
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


def _layer_and_name(path: str) -> tuple[str, str]:
    """The layer's number and the last name, the only parts that the engine uses."""
    match = _LAYER.search(path)
    return (match[1] if match else "", last_name(path))
