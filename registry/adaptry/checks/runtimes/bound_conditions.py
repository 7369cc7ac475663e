"""Conditions on the result of binding an adapter to its base (`checks.binding`). They need the base."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.formats import PEFT
from adaptry.bases.parameter_lookup import ParameterNames
from adaptry.checks.base.fit import check_fit
from adaptry.checks.binding.bound_adapter import DropCause
from adaptry.checks.binding.loaded_model import LoadedModel, load_model
from adaptry.checks.binding.targets import ModuleTargets
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.runtimes.conditions import is_wrapped, unclaimed, wrapped
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.core.errors import InvalidConfig

_BY_TARGETS = frozenset(["lora", "loha", "lokr", "oft", "boft", "ia3", "hra", "miss"])
"""Common methods that adapt the modules that `target_modules` selects."""


def dropped(*causes: DropCause) -> Condition:
    """Modules and whole weights that PEFT drops for one of these causes. Other rules find unclaimed tensors
    and wrapped names.
    """

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        unknown = frozenset(subject.spec.unclaimed)
        lost = [
            one
            for one in (subject.bound.dropped if subject.bound else ())
            if one.cause in causes and unknown.isdisjoint(one.tensors) and not is_wrapped(one.path)
        ]
        if not lost:
            return None
        paths = tuple(one.path for one in lost)
        return ConditionMatch(f"it drops {shorten_names(fold_layer_numbers(paths))}: {lost[0].reason}", paths)

    return found


def not_targeted(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules that PEFT, given the config, does not adapt; without a base, as far as the config shows
    this.
    """
    if subject.base is not None:
        return dropped("not_targeted")(subject, runtime)
    if not subject.config.fields.get("target_modules") and not _lists_nothing(subject):
        return None
    paths = [module.path for module in subject.spec.modules if module.kind in ("linear", "conv")]
    if subject.spec.method not in _BY_TARGETS or not paths:
        return None
    targets = ModuleTargets(subject.config, subject.spec.method, {})
    targets.prepare(paths)
    try:
        left = {path: why for path in paths if (why := targets.reason_not_adapted(path)) is not None}
    except InvalidConfig:  # a refused pattern: the modules that it selects are unknown
        return None
    if not left:
        return None
    names = shorten_names(fold_layer_numbers(left))
    return ConditionMatch(f"it drops {names}: {next(iter(left.values()))}", tuple(left))


def default_targets(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A config without `target_modules`, for an unknown base."""
    if subject.base is not None or subject.config.fields.get("target_modules") is not None:
        return None
    if subject.spec.method not in _BY_TARGETS or not any(m.kind == "linear" for m in subject.spec.modules):
        return None
    return ConditionMatch("target_modules is not set, so the modules that PEFT adapts depend on the model")


def _lists_nothing(subject: CheckSubject) -> bool:
    return subject.config.fields.get("target_modules") == [] and not subject.config.names("target_parameters")


def unclaimed_by_peft(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Like `unclaimed`, except for whole weights that PEFT loads because the base has a parameter of that
    name.
    """
    if subject.bound is None or subject.bound.adapter.format is not PEFT:
        return unclaimed(subject, runtime)
    loaded = {extra.extra.tensor for extra in subject.bound.module_map.extras}
    names = tuple(name for name in subject.spec.unclaimed if name not in loaded)
    if not names:
        return None
    return ConditionMatch(
        f"{format_count(len(names), 'tensor')} would be dropped: {shorten_names(fold_layer_numbers(names))}",
        names,
    )


def misfits(*codes: str) -> Condition:
    """Findings with these codes about modules and shapes of the base, if no name is wrapped."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        if subject.base is None or subject.bound is None or wrapped(subject, runtime):
            return None
        fits = check_fit(subject.adapter, subject.bound.base, subject.bound.module_map)
        wrong = [finding for finding in fits if finding.code in codes]
        if not wrong:
            return None
        return ConditionMatch("; ".join(finding.reason for finding in wrong), wrong[0].modules)

    return found


def selects_nothing(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A config without `target_modules`, for a model without defaults in PEFT."""
    bound = subject.bound
    if bound is None or subject.base is None or not bound.refusals or not subject.spec.modules:
        return None
    targets = ModuleTargets(subject.config, subject.spec.method, subject.base.facts)
    return ConditionMatch("the config selects no module (target_modules)") if targets.has_none else None


def targets_unfit(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Selected modules that are not matrices, such as norms, blocks or attentions."""
    model = _loaded_model(subject)
    if model is None or _is_all_linear(subject):
        return None
    parameters = model.names.parameters
    unfit = sorted(
        path
        for path in model.names.modules
        if model.reason_not_adapted(path) is None and not _is_adaptable(path, parameters)
    )
    if not unfit:
        return None
    return ConditionMatch(
        f"target_modules selects {shorten_names(fold_layer_numbers(unfit))}", tuple(unfit[:20])
    )


def targets_nowhere(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A selection that matches no module of the model."""
    model = _loaded_model(subject)
    if model is None or model.targets.is_free or model.targets.has_none:
        return None
    if subject.config.names("target_parameters") or subject.spec.method not in _BY_TARGETS:
        return None
    if any(model.reason_not_adapted(path) is None for path in model.names.modules):
        return None
    return ConditionMatch("the config selects no module of this model")


def _loaded_model(subject: CheckSubject) -> LoadedModel | None:
    """The model; None if `bind` does not follow PEFT's steps for this file, or the base is unknown."""
    spec = subject.spec
    if subject.base is None or subject.adapter.format is not PEFT or spec.method not in _BY_TARGETS:
        return None
    is_converted = ParameterNames(subject.base.tensors, subject.base.facts).is_converted
    if "layer_replication" in spec.traits or is_converted:
        return None
    try:
        model = load_model(subject.adapter, subject.base)
        model.targets.prepare(model.names.modules)
        model.reason_not_adapted("")
    except InvalidConfig:  # a refused pattern: the modules that it selects are unknown
        return None
    return model


def _is_all_linear(subject: CheckSubject) -> bool:
    targets = subject.config.fields.get("target_modules")
    return isinstance(targets, str) and targets.lower() == "all-linear"


def _is_adaptable(path: str, parameters: Mapping[str, tuple[int, ...] | None]) -> bool:
    """Whether PEFT can adapt the module: it has a matrix, of known or unknown shape."""
    if f"{path}.weight" in parameters:
        shape = parameters[f"{path}.weight"]
        return shape is None or len(shape) > 1
    return any(f"{path}.{name}" in parameters for name in ("in_proj_weight", "qweight"))


def saved_without_tensors(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`modules_to_save` that the model has, but the file does not."""
    bound = subject.bound
    listed = subject.config.names("modules_to_save")
    if bound is None or not bound.refusals or not listed or subject.spec.extras:
        return None
    return ConditionMatch(f"modules_to_save lists {shorten_names(listed)}, but the file has none of them")


def refused_otherwise(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Any other reason for which PEFT raises an error; evaluated again after the two above are repaired."""
    bound = subject.bound
    if bound is None or not bound.refusals:
        return None
    if selects_nothing(subject, runtime) or saved_without_tensors(subject, runtime):
        return None
    return ConditionMatch("; ".join(bound.refusals))
