"""Conditions on tensors' names as an engine reads them (`engine_view`), which may differ from PEFT."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Set
from types import MappingProxyType

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.extras import PREFIX
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.conditions import is_wrapped, other_tensors
from adaptry.checks.runtimes.name_readers import NameReader
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

_FACTOR = re.compile(r".+\.(?:lora_[AB]\.weight|lora_embedding_[AB])")
_FACTOR_LETTER = re.compile(r"lora_(?:embedding_)?[AB]")
_KEPT_COPY = re.compile(r"(?:.+\.)?(?:embed_tokens|lm_head)\.base_layer\.weight")
_LAYER = re.compile(r"layers\.\d+\.")
_WHOLE_MODEL = re.compile(r"(?:model|transformer)\.(?P<rest>.+)")


def is_unpaired_factor(name: str) -> bool:
    """Whether an unclaimed tensor is a factor whose counterpart is missing or does not fit."""
    is_named = _FACTOR.fullmatch(name) is not None and name.startswith(PREFIX)
    return is_named and not name.startswith(PREFIX * 2)


def no_factor(
    *,
    but: tuple[str, ...] = (),
    in_layers: bool | None = None,
    unpaired: bool = True,
    filled: Mapping[str, str] = MappingProxyType({}),
) -> Condition:
    """Tensors that are not a pair of factors for the engine, except names that contain one of `but`.
    `in_layers` restricts them to tensors inside or outside layers; `unpaired` includes factors without a
    counterpart. `filled` maps a module's last name to that of a module which the engine packs with it: if
    that one has the same factor, the engine takes zeros for a missing counterpart.
    """

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        further = other_tensors(subject, runtime)
        names = [*subject.unread, *(further.modules if further else ())]
        names = [
            name
            for name in names
            if not any(part in name for part in but)
            and (unpaired or name in subject.unread or not is_unpaired_factor(name))
            and not _is_filled(subject, name, filled)
            and (in_layers is None or bool(_LAYER.search(name)) is in_layers)
        ]
        if not names:
            return None
        return ConditionMatch(
            f"{format_count(len(names), 'tensor')} in addition to complete pairs of factors:"
            f" {shorten_names(fold_layer_numbers(names))}",
            tuple(names),
        )

    return found


def dropped_by_name(*parts: str) -> Condition:
    """Tensors that are not factors and have one of these parts in their names, which the engine ignores."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        spec = subject.spec
        names = [*spec.unclaimed, *(extra.tensor for extra in spec.extras if not is_kept_copy(extra.tensor))]
        names = [name for name in names if any(part in name for part in parts) and not is_kept_copy(name)]
        if not names:
            return None
        return ConditionMatch(f"it drops {shorten_names(fold_layer_numbers(names))}", tuple(names))

    return found


def is_kept_copy(name: str) -> bool:
    """Whether the weight is the copy of an embedding that PEFT saves with an update of the embedding."""
    return _KEPT_COPY.fullmatch(name) is not None


def unpaired_factors(*, of: Set[str] | None = None, but: Set[str] = frozenset()) -> Condition:
    """Factors without their counterpart, of modules whose last name is in `of` (or of all modules), except
    `but`.
    """

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        names = [name for name in subject.spec.unclaimed if is_unpaired_factor(name)]
        names = [name for name in names if (of is None or _module(name) in of) and _module(name) not in but]
        if not names:
            return None
        return ConditionMatch(
            f"{shorten_names(fold_layer_numbers(names))} lacks its other factor", tuple(names)
        )

    return found


def unpaired_a_with_scale(*, of: Set[str]) -> Condition:
    """`lora_A` without `lora_B`, of modules whose last name is in `of`, if the config's scale is not 1: the
    engine multiplies the missing factor by it.
    """
    unpaired = unpaired_factors(of=of)

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        match = unpaired(subject, runtime)
        names = tuple(name for name in match.modules if ".lora_A." in name) if match else ()
        rank = subject.config.rank()
        rank_scale = math.sqrt(rank) if subject.config.flag("use_rslora") else rank
        if not names or subject.config.number("lora_alpha", 8) == rank_scale:
            return None
        return ConditionMatch(f"{shorten_names(fold_layer_numbers(names))} has no `lora_B`", names)

    return found


def _is_filled(subject: CheckSubject, name: str, filled: Mapping[str, str]) -> bool:
    """Whether the engine takes zeros for the counterpart of this factor, because the module that is packed
    with its own has a factor of the same kind and shape.
    """
    last = _module(name)
    if last not in filled or not is_unpaired_factor(name):
        return False
    tensors = subject.adapter.tensors
    beside = tensors.get(name.replace(f".{last}.", f".{filled[last]}."))
    return beside is not None and beside.shape == tensors[name].shape


def _module(name: str) -> str:
    """The last name of a factor's module."""
    return name.partition(".lora_")[0].rpartition(".")[2]


def other_prefix(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors with a name that the engine accepts and PEFT drops."""
    dropped = frozenset(subject.written.spec.unclaimed) if subject.written else frozenset[str]()
    names = tuple(name for name in subject.renamed.values() if name in dropped)
    if not names:
        return None
    return ConditionMatch(f"{format_count(len(names), 'name')} that PEFT drops, such as {names[0]}", names)


def factor_names_differ(*ignored: str) -> Condition:
    """Modules whose factors' names differ in more than the factor and the parts in `ignored`, which the
    engine removes before it compares names.
    """

    def compared(name: str) -> str:
        for part in ignored:
            name = name.replace(part, "")
        return _FACTOR_LETTER.sub("lora_", name)

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        paths = []
        for module in subject.spec.modules:
            names = [subject.renamed.get(name, name) for name in module.tensors.values()]
            if len({compared(name) for name in names}) > 1:
                paths.append(module.path)
        if not paths:
            return None
        return ConditionMatch(
            f"the factors of {shorten_names(fold_layer_numbers(paths))} differ in name", tuple(paths)
        )

    return found


def packed_names_differ(*groups: tuple[str, ...]) -> Condition:
    """Modules that the engine packs into one weight, but whose names differ in more than the module."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        spellings: dict[tuple[str, tuple[str, ...], str], set[str]] = {}
        for module in subject.spec.modules:
            parent, _, last = module.path.rpartition(".")
            for group in groups:
                if last in group:
                    for role, name in module.tensors.items():
                        spelled = subject.renamed.get(name, name).replace(f".{last}.", ".")
                        spellings.setdefault((parent, group, role), set()).add(spelled)
        apart = sorted({parent for (parent, _, _), names in spellings.items() if len(names) > 1})
        if not apart:
            return None
        return ConditionMatch(
            f"names in {shorten_names(fold_layer_numbers(apart))} begin differently", tuple(apart)
        )

    return found


def other_method(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A config whose method is known, and is not that of the file's factors."""
    declared = _undeclared_method(subject)
    is_known = declared is not None and declared.lower() in METHODS
    return ConditionMatch(f"peft_type is {declared[:40]!a}") if declared and is_known else None


def unknown_method(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A config with an unknown method and the factors of a LoRA: it is unknown how the method uses them."""
    declared = _undeclared_method(subject)
    if declared is None or declared.lower() in METHODS:
        return None
    return ConditionMatch(
        f"peft_type is {declared[:40]!a}, an unknown method; the engine does not read it, and applies the"
        " factors as a LoRA's"
    )


def _undeclared_method(subject: CheckSubject) -> str | None:
    """The config's method, if it is not that of the file's factors."""
    declared = subject.written.config.peft_type if subject.written else "LORA"
    return None if declared == subject.config.peft_type else declared


def not_in_base(
    read: NameReader,
    same: Callable[[str], str] = str,
    reads_for: Callable[[BaseRecord], NameReader] | None = None,
    same_for: Callable[[BaseRecord], Callable[[str], str]] | None = None,
) -> Condition:
    """Factors that the engine reads, but for which a known base has no tensor of that name. `same` maps the
    names that model families give a module to the engine's name, and `same_for` returns that function if it
    depends on the base; `reads_for` is that of `RuntimeRules`.
    """

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        if subject.base is None:
            return None
        names = {name.rpartition(".")[0] for name in subject.base.tensors}
        read_name = reads_for(subject.base) if reads_for else read
        own = same_for(subject.base) if same_for else same
        known = {own(read_name(f"{name}.lora_A.weight") or name) for name in names}
        unpaired = [name.partition(".lora_")[0].removeprefix(PREFIX) for name in _unpaired_factors(subject)]
        paths = [module.path for module in subject.spec.modules if module.kind in ("linear", "embedding")]
        taken = dict.fromkeys([*paths, *unpaired])
        missing = tuple(
            path
            for path in taken
            if (own(path) not in known or (own(path) != path and own(path) in taken))
            and _without_task(own(path), known) not in known
            and not is_wrapped(path)
        )
        if not missing:
            return None
        return ConditionMatch(
            f"the base stores nothing under {shorten_names(fold_layer_numbers(missing))}", missing
        )

    return found


def last_name_unknown(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose last name is not that of any matrix of a known base."""
    if subject.base is None:
        return None
    tensors = subject.base.tensors
    known = {name.split(".")[-2] for name in tensors if "." in name and len(tensors[name].shape) > 1}
    paths = tuple(
        module.path
        for module in subject.spec.modules
        if module.kind in ("linear", "embedding") and module.path.rpartition(".")[2] not in known
    )
    if not paths or not known:
        return None
    return ConditionMatch(
        f"no module of the base has the name {shorten_names(fold_layer_numbers(paths))}", paths
    )


def _unpaired_factors(subject: CheckSubject) -> list[str]:
    return [name for name in subject.spec.unclaimed if is_unpaired_factor(name)]


def _without_task(path: str, names: Set[str]) -> str:
    """The name without the prefix that a checkpoint of the bare model lacks."""
    match = _WHOLE_MODEL.fullmatch(path)
    whole = path.partition(".")[0] + "."
    return match["rest"] if match and not any(name.startswith(whole) for name in names) else path
