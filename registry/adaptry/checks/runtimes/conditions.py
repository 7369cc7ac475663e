"""The conditions that rules are made of: functions that make a condition, named for what it finds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ExtraWeight, ModuleSpec
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime, format_version

Scale = Callable[[AdapterConfig, ModuleSpec], float]
"""What an engine multiplies a module's update by."""

_FACTORS = frozenset(["A", "B", "embedding_A", "embedding_B"])
_WRAPPERS = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
_NAMED_INSIDE = re.compile(r".+\.lora_(?:(?:A|B)\.[^.]+\.weight|embedding_(?:A|B)\.[^.]+)")


def other_files(*taken: str) -> Condition:
    """Files that another tool wrote, not one of `taken` (names of formats)."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        format = subject.adapter.format
        return (
            None
            if format.name in taken
            else ConditionMatch(f"its files are {format.tool}'s: no adapter of {PEFT.tool}'s layout")
        )

    return found


def method_beyond(*methods: str) -> Condition:
    """Another method than these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        method = METHODS.get(subject.spec.method)
        title = method.title if method else subject.spec.method
        return None if subject.spec.method in methods else ConditionMatch(f"its method is {title}")

    return found


def unknown_method(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A method that no rule here describes, which PEFT then does not know either."""
    method = subject.spec.method
    return None if method in METHODS else ConditionMatch(f"its method is {method}, which PEFT does not know")


def trait(name: str, sentence: str) -> Condition:
    """A trait of the spec, with a sentence that says what it is."""
    return traits({name: sentence})


def traits(sentences: dict[str, str]) -> Condition:
    """Any of these traits of the spec."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        said = [text for name, text in sentences.items() if name in subject.spec.traits]
        return ConditionMatch("; ".join(said)) if said else None

    return found


def extras(*kinds: str) -> Condition:
    """Whole weights of these kinds beside the factors."""

    return lambda subject, runtime: _extras(subject, lambda extra: extra.kind in kinds)


def has_biases(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Biases of the base, or of `lora_B`, in the file."""
    if "lora_bias" in subject.spec.traits:
        return ConditionMatch("lora_B has biases (lora_bias)")
    return _extras(subject, lambda extra: extra.kind == "bias")


def replaced(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules or embeddings in place of the base's, but for copies that PEFT keeps beside an update."""
    return _extras(
        subject, lambda extra: extra.kind == "module" or (_is_table(extra) and not _is_copy(extra))
    )


def replaced_but(modules: frozenset[str]) -> Condition:
    """`replaced`, but for one of `modules` (the last part of a name)."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        return _extras(
            subject,
            lambda extra: (
                (extra.kind == "module" and extra.target.split(".")[-2:][0] not in modules)
                or (_is_table(extra) and not _is_copy(extra))
            ),
        )

    return found


def saved_beyond(modules: frozenset[str]) -> Condition:
    """`modules_to_save` in the config lists others than these, whether or not the file has them."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        others = sorted(set(subject.config.names("modules_to_save")) - modules)
        return ConditionMatch(f"modules_to_save lists {shorten_names(others)}") if others else None

    return found


def copied(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Copies of whole embeddings that PEFT keeps beside an update of them."""
    return _extras(subject, lambda extra: _is_table(extra) and _is_copy(extra))


def kinds(*names: str) -> Condition:
    """Modules of these kinds."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        paths = [module.path for module in subject.spec.modules if module.kind in names]
        return (
            ConditionMatch(f"it changes {shorten_names(fold_layer_numbers(paths))}", tuple(paths))
            if paths
            else None
        )

    return found


def targets_beyond(known: frozenset[str]) -> Condition:
    """Modules whose last name is none of these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        paths = [module.path for module in subject.spec.modules if last_name(module.path) not in known]
        return (
            ConditionMatch(f"it changes {shorten_names(fold_layer_numbers(paths))}", tuple(paths))
            if paths
            else None
        )

    return found


def targets_in(names: frozenset[str]) -> Condition:
    """Modules whose last name is one of these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        paths = [module.path for module in subject.spec.modules if last_name(module.path) in names]
        return (
            ConditionMatch(f"it changes {shorten_names(fold_layer_numbers(paths))}", tuple(paths))
            if paths
            else None
        )

    return found


def target_text(*taken: str) -> Condition:
    """`target_modules` is a text, and none of `taken`."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        targets = subject.config.fields.get("target_modules")
        if not isinstance(targets, str) or targets in taken:
            return None
        return ConditionMatch(f"target_modules is the text {targets[:60]!a}, and a list is wanted")

    return found


def initialised(*words: str) -> Condition:
    """One of the initialisations that the engine refuses or does not do again."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        value = subject.config.fields.get("init_lora_weights")
        if not isinstance(value, str) or not value.lower().startswith(words):
            return None
        return ConditionMatch(f"init_lora_weights is {value[:40]!a}")

    return found


def initialised_beyond(*words: str) -> Condition:
    """An initialisation, as a word, that is none of these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        value = subject.config.fields.get("init_lora_weights")
        if not isinstance(value, str) or value.lower() in words:
            return None
        return ConditionMatch(f"init_lora_weights is {value[:40]!a}")

    return found


def field_set(*keys: str) -> Condition:
    """One of these fields of the config is set."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        fields = [key for key in keys if subject.config.fields.get(key) not in (None, False, [], {}, "")]
        return ConditionMatch(f"adapter_config.json sets {shorten_names(fields)}") if fields else None

    return found


def field_missing(*keys: str) -> Condition:
    """One of these fields of the config is not there."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        fields = [key for key in keys if subject.config.fields.get(key) is None]
        return ConditionMatch(f"adapter_config.json has no {', '.join(fields)}") if fields else None

    return found


def fields_lacking(with_value: tuple[str, ...], as_key: tuple[str, ...]) -> Condition:
    """One of `with_value` has no value, or one of `as_key` is not there at all, not even as null."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        lacking = [key for key in with_value if subject.config.fields.get(key) is None]
        lacking += [key for key in as_key if key not in subject.config.fields]
        return ConditionMatch(f"adapter_config.json has no {', '.join(lacking)}") if lacking else None

    return found


def fields_null(with_value: tuple[str, ...], not_null: tuple[str, ...]) -> Condition:
    """One of `with_value` has no value, or one of `not_null` is null; left out, it has a default."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        fields = subject.config.fields
        lacking = [key for key in with_value if fields.get(key) is None]
        lacking += [key for key in not_null if key in fields and fields[key] is None]
        return ConditionMatch(f"adapter_config.json has no {', '.join(lacking)}") if lacking else None

    return found


def fraction_of_alpha(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`lora_alpha` is no whole number."""
    alpha = subject.config.number("lora_alpha", 8)
    return None if type(alpha) is int and alpha >= 0 else ConditionMatch(f"lora_alpha is {alpha}")


def other_tensors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tensors that are neither factors nor whole weights: unclaimed ones, and a module's further parts."""
    further = [
        tensor
        for module in subject.spec.modules
        for role, tensor in module.tensors.items()
        if role not in _FACTORS and role != "magnitude" and role != "B_bias"
    ]
    names = [*subject.spec.unclaimed, *further]
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'tensor')} beside the factors:"
        f" {shorten_names(fold_layer_numbers(names))}",
        tuple(names),
    )


def wrapped(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose names have a part that torch.compile, FSDP or activation checkpointing put there."""
    paths = [module.path for module in subject.spec.modules if is_wrapped(module.path)]
    if not paths:
        return None
    return ConditionMatch(f"no model has {shorten_names(fold_layer_numbers(paths))}", tuple(paths))


def is_wrapped(path: str) -> bool:
    """Whether a training wrapper's part is in the name."""
    return not _WRAPPERS.isdisjoint(path.split("."))


def named_inside(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors with an adapter's name before their last part: PEFT takes `default` there, and drops others."""
    claimed = [tensor for module in subject.spec.modules for tensor in module.tensors.values()]
    names = [name for name in (*claimed, *subject.spec.unclaimed) if _NAMED_INSIDE.fullmatch(name)]
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'name')} with an adapter's name inside, such as {names[0]}", tuple(names)
    )


def lists_bias(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`bias` is set in the config, and the file has no biases."""
    bias = subject.config.fields.get("bias")
    if bias in (None, "none") or has_biases(subject, runtime):
        return None
    return ConditionMatch(f"bias is {str(bias)[:40]!a}, and the file has none")


def in_doubles(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors of float64."""
    tensors = subject.adapter.tensors
    factors = [name for module in subject.spec.modules for name in module.tensors.values()]
    names = [name for name in factors if tensors[name].dtype == "F64"]
    return ConditionMatch(f"{format_count(len(names), 'factor')} of F64", tuple(names)) if names else None


def unclaimed(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tensors that nothing in the config stands for."""
    names = subject.spec.unclaimed
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'tensor')} would be dropped: {shorten_names(fold_layer_numbers(names))}",
        names,
    )


def other_scale(scale: Scale) -> Condition:
    """Modules that the engine would multiply by another scale than they were trained with."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        wrong = {
            module.path: ratio
            for module in subject.spec.modules
            if module.kind != "parameter"  # whose rank is of all experts together
            and (ratio := _ratio(scale(subject.config, module), module.scale)) is not None
        }
        if not wrong:
            return None
        path, ratio = max(wrong.items(), key=lambda pair: abs(math.log(pair[1])) if pair[1] > 0 else math.inf)
        told = f"{1 / ratio:.3g} times too weak" if 0 < ratio < 1 else f"{ratio:.3g} times too strong"
        many = format_count(len(wrong), "module")
        return ConditionMatch(
            f"{many} would get another scale, {fold_layer_numbers([path])[0]} one that is {told}",
            tuple(wrong),
        )

    return found


def layout(name: str, sentence: str) -> Condition:
    """A layout of `adapters.key_layout`."""
    return lambda subject, runtime: ConditionMatch(sentence) if name in subject.spec.layouts else None


def written_before(version: tuple[int, ...], condition: Condition) -> Condition:
    """The condition, for an adapter that an older PEFT than `version` wrote."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        own = _peft_version(subject)
        result = condition(subject, runtime)
        if result is None or own is None or own >= version:
            return None
        return ConditionMatch(f"{result.reason}, written by PEFT {format_version(own)}", result.modules)

    return found


def written_from(version: tuple[int, ...], condition: Condition) -> Condition:
    """The condition, for an adapter that PEFT of this version or a newer one wrote."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        own = _peft_version(subject)
        result = condition(subject, runtime)
        if result is None or own is None or own < version:
            return None
        return ConditionMatch(f"{result.reason}, written by PEFT {format_version(own)}", result.modules)

    return found


def _extras(subject: CheckSubject, chosen: Callable[[ExtraWeight], bool]) -> ConditionMatch | None:
    targets = [extra.target for extra in subject.spec.extras if chosen(extra)]
    return (
        ConditionMatch(f"it replaces {shorten_names(fold_layer_numbers(targets))}", tuple(targets))
        if targets
        else None
    )


def _is_table(extra: ExtraWeight) -> bool:
    return extra.kind == "saved_embedding"


def _is_copy(extra: ExtraWeight) -> bool:
    return ".base_layer." in extra.tensor


def _peft_version(subject: CheckSubject) -> tuple[int, ...] | None:
    match = re.match(r"(\d{1,9})\.(\d{1,9})", subject.spec.peft_version or "")
    return (int(match[1]), int(match[2])) if match else None


def _ratio(served: float, trained: float) -> float | None:
    """How many times too strong; None where it is right."""
    if math.isclose(served, trained, rel_tol=1e-6):
        return None
    return served / trained if trained else math.inf


def last_name(path: str) -> str:
    """The name of the module, without PEFT's wrapping and without an expert's number."""
    return path.replace(".base_layer", "").rpartition(".")[2]
