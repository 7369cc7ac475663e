"""The conditions of rules: functions that create a condition. Each is named after the adapters that it
matches."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ExtraWeight, ModuleSpec
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, OUTPUT_HEADS
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime, format_version

Scale = Callable[[AdapterConfig, ModuleSpec], float]
"""A function that gives the factor by which an engine multiplies a module's update."""

_FACTORS = frozenset(["A", "B", "embedding_A", "embedding_B"])
_TABLES = INPUT_EMBEDDINGS | OUTPUT_HEADS
_WRAPPERS = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
_NAMED_INSIDE = re.compile(r".+\.lora_(?:(?:A|B)\.[^.]+\.weight|embedding_(?:A|B)\.[^.]+)")


def other_files(*taken: str) -> Condition:
    """Files in a format that is not in `taken`."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        format = subject.adapter.format
        return (
            None
            if format.name in taken
            else ConditionMatch(f"its files are in the layout of {format.tool}, and not in {PEFT.tool}'s")
        )

    return found


def method_beyond(*methods: str) -> Condition:
    """A method other than these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        method = METHODS.get(subject.spec.method)
        title = method.title if method else subject.spec.method
        return None if subject.spec.method in methods else ConditionMatch(f"its method is {title}")

    return found


def unknown_method(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A method that has no entry here and that PEFT does not know either."""
    method = subject.spec.method
    return None if method in METHODS else ConditionMatch(f"its method is {method}, which PEFT does not know")


def trait(name: str, sentence: str) -> Condition:
    """A trait of the spec, with a sentence that describes it."""
    return traits({name: sentence})


def traits(sentences: dict[str, str]) -> Condition:
    """Any of these traits of the spec."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        texts = [text for name, text in sentences.items() if name in subject.spec.traits]
        return ConditionMatch("; ".join(texts)) if texts else None

    return found


def extras(*kinds: str) -> Condition:
    """Whole weights of these kinds in addition to the factors."""

    return lambda subject, runtime: _extras(subject, lambda extra: extra.kind in kinds)


def has_biases(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Biases of the base, or of `lora_B`, in the file."""
    if "lora_bias" in subject.spec.traits:
        return ConditionMatch("lora_B has biases (lora_bias)")
    return _extras(subject, lambda extra: extra.kind == "bias")


def biases_in_file(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Biases in the file, regardless of the config."""
    paths = [module.path for module in subject.spec.modules if "B_bias" in module.tensors]
    if paths:
        names = shorten_names(fold_layer_numbers(paths))
        return ConditionMatch(f"lora_B of {names} has biases", tuple(paths))
    return _extras(subject, lambda extra: extra.kind == "bias")


def magnitudes_in_file(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """DoRA's magnitudes in the file, regardless of the config."""
    paths = [module.path for module in subject.spec.modules if "magnitude" in module.tensors]
    if not paths:
        return None
    names = shorten_names(fold_layer_numbers(paths))
    return ConditionMatch(f"{names} has DoRA's magnitudes, which scale the base's weights", tuple(paths))


def replaced(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Whole modules or embeddings that replace the base's, except copies that PEFT saves with an update."""
    return _extras(subject, lambda extra: extra.kind == "module" or _is_whole_table(extra))


def replaced_unnamed(*parts: str) -> Condition:
    """`replaced`, except tensors with one of these parts in their names."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        return _extras(
            subject,
            lambda extra: (
                (extra.kind == "module" or _is_whole_table(extra))
                and not any(part in extra.tensor for part in parts)
            ),
        )

    return found


def replaced_but(modules: frozenset[str]) -> Condition:
    """`replaced`, except `modules` (last parts of names)."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        return _extras(
            subject,
            lambda extra: (
                (extra.kind == "module" and extra.target.split(".")[-2:][0] not in modules)
                or _is_whole_table(extra)
            ),
        )

    return found


def saved_beyond(modules: frozenset[str]) -> Condition:
    """`modules_to_save` in the config lists modules other than these, whether or not the file has them."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        others = sorted(set(subject.config.names("modules_to_save")) - modules)
        return ConditionMatch(f"modules_to_save lists {shorten_names(others)}") if others else None

    return found


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
    """Modules whose last name is not one of these."""

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


def other_tensors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tensors that are neither factors nor whole weights: unclaimed ones, and further tensors of a module."""
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
        f"{format_count(len(names), 'tensor')} in addition to the factors:"
        f" {shorten_names(fold_layer_numbers(names))}",
        tuple(names),
    )


def wrapped(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules with a part in their names that torch.compile, FSDP or activation checkpointing added."""
    paths = [module.path for module in subject.spec.modules if is_wrapped(module.path)]
    if not paths:
        return None
    return ConditionMatch(f"no model has {shorten_names(fold_layer_numbers(paths))}", tuple(paths))


def is_wrapped(path: str) -> bool:
    """Whether a training wrapper's part is in the name."""
    return not _WRAPPERS.isdisjoint(path.split("."))


def named_inside(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors with an adapter's name before their last part: PEFT accepts `default` there, and drops
    others.
    """
    claimed = [tensor for module in subject.spec.modules for tensor in module.tensors.values()]
    names = [name for name in (*claimed, *subject.spec.unclaimed) if _NAMED_INSIDE.fullmatch(name)]
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'name')} with an adapter's name inside, such as {names[0]}", tuple(names)
    )


def lists_bias(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`bias` is set in the config, but the file has no biases."""
    bias = subject.config.fields.get("bias")
    if bias in (None, "none") or has_biases(subject, runtime):
        return None
    return ConditionMatch(f"bias is {str(bias)[:40]!a}, but the file has none")


def dtypes_beyond(*dtypes: str) -> Condition:
    """Factors with dtypes other than these."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        tensors = subject.adapter.tensors
        factors = [name for module in subject.spec.modules for name in module.tensors.values()]
        names = [name for name in factors if tensors[name].dtype not in dtypes]
        if not names:
            return None
        kinds = shorten_names(sorted({tensors[name].dtype for name in names}))
        return ConditionMatch(f"{format_count(len(names), 'factor')} of {kinds}", tuple(names))

    return found


def unclaimed(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Tensors that nothing in the config accounts for."""
    names = subject.spec.unclaimed
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'tensor')} would be dropped: {shorten_names(fold_layer_numbers(names))}",
        names,
    )


def other_scale(scale: Scale) -> Condition:
    """Modules to which the engine would apply a different scale than in training."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        wrong = {
            module.path: ratio
            for module in subject.spec.modules
            if module.kind != "parameter"  # the rank of a parameter counts all experts together
            and (ratio := _ratio(scale(subject.config, module), trained_scale(subject, module))) is not None
        }
        if not wrong:
            return None
        path, ratio = max(wrong.items(), key=lambda pair: abs(math.log(pair[1])) if pair[1] > 0 else math.inf)
        difference = f"{1 / ratio:.3g} times too weak" if 0 < ratio < 1 else f"{ratio:.3g} times too strong"
        difference = "not 0, as it was trained" if math.isinf(ratio) else difference
        many = format_count(len(wrong), "module")
        return ConditionMatch(
            f"{many} would get a wrong scale, {fold_layer_numbers([path])[0]} one that is {difference}",
            tuple(wrong),
        )

    return found


def trained_scale(subject: CheckSubject, module: ModuleSpec) -> float:
    """The scale according to the factors' rank: a config with another rank cannot be the one used in
    training.
    """
    rooted = subject.config.flag("use_rslora")
    return module.alpha / (math.sqrt(module.rank) if rooted else module.rank)


def layout(name: str, sentence: str) -> Condition:
    """A layout of `adapters.key_layout`."""
    return lambda subject, runtime: ConditionMatch(sentence) if name in subject.spec.layouts else None


def written_before(version: tuple[int, ...], condition: Condition) -> Condition:
    """The condition, for an adapter written by a version of PEFT before `version`."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        own = _peft_version(subject)
        result = condition(subject, runtime)
        if result is None or own is None or own >= version:
            return None
        return ConditionMatch(f"{result.reason}, written by PEFT {format_version(own)}", result.modules)

    return found


def written_from(version: tuple[int, ...], condition: Condition) -> Condition:
    """The condition, for an adapter written by this version of PEFT or a newer one."""

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


def is_embedding_copy(extra: ExtraWeight) -> bool:
    """Whether the weight is the copy of an embedding or head that PEFT saves with an update; others replace
    the base's weight.
    """
    is_table = extra.kind == "saved_embedding" and extra.target.split(".")[-2] in _TABLES
    return is_table and ".base_layer." in extra.tensor


def _is_whole_table(extra: ExtraWeight) -> bool:
    return extra.kind == "saved_embedding" and not is_embedding_copy(extra)


def _peft_version(subject: CheckSubject) -> tuple[int, ...] | None:
    match = re.match(r"(\d{1,9})\.(\d{1,9})", subject.spec.peft_version or "")
    return (int(match[1]), int(match[2])) if match else None


def _ratio(served: float, trained: float) -> float | None:
    """The factor by which the engine's scale is too large; None if the scale is right."""
    if math.isclose(served, trained, rel_tol=1e-6):
        return None
    return served / trained if trained else math.inf


def last_name(path: str) -> str:
    """The name of the module, without PEFT's wrappers and an expert's number."""
    return path.replace(".base_layer", "").rpartition(".")[2]
