"""Conditions on the tensors that llama.cpp's converter makes of an adapter's modules.

The converter treats an update like the weight that it changes: the weights of a layer's experts become one
tensor when all of them have arrived, and some weights are split or transposed, which it cannot do with every
update.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.tensor_names import is_input_embedding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.llamacpp_names import is_in_tower
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

_EXPERT = re.compile(r"(?P<layer>.+\.experts)\.(?P<number>\d+)\.(?P<name>[^.]+)")
_FUSED = re.compile(r"\.experts\.[^.\d][^.]*$")
_WITH_LATENT_ATTENTION = ("deepseek_v2", "deepseek_v3", "glm4_moe_lite")
_REARRANGED: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_WITH_LATENT_ATTENTION, frozenset(["kv_b_proj"])),
    "falcon_h1": frozenset(["in_proj"]),
}
_UNAPPLIED: Mapping[str, frozenset[str]] = dict.fromkeys(
    _WITH_LATENT_ATTENTION, frozenset(["q_a_proj", "q_b_proj", "q_proj", "kv_a_proj_with_mqa", "lm_head"])
)
"""By model type, last names of modules."""


def fused_experts(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of experts that are in one parameter although the base stores them separately. PEFT names them
    `….experts`, without the parameter's name, so the converter finds no tensor.
    """
    return None if subject.base and _stores_fused(subject.base) else _fused(subject)


def experts_fused_in_base(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """The same, for a base that stores the experts of a layer in one tensor (gpt-oss): they have no other
    names."""
    return _fused(subject) if subject.base and _stores_fused(subject.base) else None


def _fused(subject: CheckSubject) -> ConditionMatch | None:
    paths = [
        module.path
        for module in subject.spec.modules
        if module.kind == "parameter" and last_name(module.path) == "experts"
    ]
    if not paths:
        return None
    return ConditionMatch(
        f"{shorten_names(fold_layer_numbers(paths))}: it finds no tensor of this name", tuple(paths)
    )


def _stores_fused(base: BaseRecord) -> bool:
    return any(_FUSED.search(name) for name in base.tensors)


def incomplete_experts(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Layers with updates of some of their experts' weights, but not of all. Needs the base."""
    wanted = _weights_of_experts(subject.base) if subject.base else 0
    few = {layer: len(ranks) for layer, ranks in _ranks(subject).items() if len(ranks) < wanted}
    if not few:
        return None
    layer, found = min(few.items(), key=lambda item: item[1])
    return ConditionMatch(
        f"{fold_layer_numbers([layer])[0]} has updates of {found} of {format_count(wanted, 'weight')}",
        tuple(few),
    )


def experts_of_several_ranks(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of the same weight of a layer's experts that have different ranks."""
    uneven = []
    for layer, ranks in _ranks(subject).items():
        by_name: dict[str, set[int]] = {}
        for (_, name), rank in ranks.items():
            by_name.setdefault(name, set()).add(rank)
        uneven += [f"{layer}.N.{name}" for name, found in by_name.items() if len(found) > 1]
    if not uneven:
        return None
    return ConditionMatch(f"{shorten_names(fold_layer_numbers(uneven))} has several ranks", tuple(uneven))


def towers(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules of a multimodal base outside its language model, by their names."""
    paths = tuple(module.path for module in subject.spec.modules if is_in_tower(module.path))
    return (
        ConditionMatch(f"it leaves out {shorten_names(fold_layer_numbers(paths))}", paths) if paths else None
    )


def except_towers(condition: Condition) -> Condition:
    """The condition, unless it concerns only modules that the converter leaves out."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        match = condition(subject, runtime)
        return None if match is None or all(map(is_in_tower, match.modules)) else match

    return found


def tied_embedding(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """An update of an embedding that is also the base's output head. Needs the base."""
    if subject.base is None or subject.base.facts.get("tie_word_embeddings") is not True:
        return None
    paths = tuple(
        module.path
        for module in subject.spec.modules
        if module.kind == "embedding" and is_input_embedding(module.path)
    )
    return ConditionMatch(f"{paths[0]} is also the output head of its base", paths) if paths else None


def rearranged(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose weights the converter splits, transposes or scales in part. Needs the base."""
    return _of_model(subject, _REARRANGED)


def unapplied(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose updates the engine loads and does not apply. Needs the base."""
    return _of_model(subject, _UNAPPLIED)


def _of_model(subject: CheckSubject, names: Mapping[str, frozenset[str]]) -> ConditionMatch | None:
    kind = str(subject.base.facts.get("model_type")) if subject.base else ""
    own = names.get(kind, frozenset())
    paths = [module.path for module in subject.spec.modules if last_name(module.path) in own]
    if not paths:
        return None
    return ConditionMatch(f"{shorten_names(fold_layer_numbers(paths))} of a {kind}", tuple(paths))


def _weights_of_experts(base: BaseRecord) -> int:
    """The number of weights of a layer's experts, if the base stores them one by one; otherwise 0."""
    layers: dict[str, set[str]] = {}
    for name in base.tensors:
        if match := _EXPERT.fullmatch(name.rpartition(".")[0]):
            layers.setdefault(match["layer"], set()).add(match[0])
    return max(map(len, layers.values()), default=0)


def _ranks(subject: CheckSubject) -> Mapping[str, Mapping[tuple[int, str], int]]:
    """For each layer, the rank of each updated weight, by its expert and name."""
    found: dict[str, dict[tuple[int, str], int]] = {}
    for module in subject.spec.modules:
        if match := _EXPERT.fullmatch(module.path):
            place = int(match["number"]), match["name"]
            found.setdefault(match["layer"], {})[place] = module.rank
    return found
