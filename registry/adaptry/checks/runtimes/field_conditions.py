"""Conditions on single fields of the config, whatever tensors the file contains."""

from __future__ import annotations

from adaptry.checks.finding_text import shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime


def target_text(*taken: str) -> Condition:
    """`target_modules` is a string that is not in `taken`."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        targets = subject.config.fields.get("target_modules")
        if not isinstance(targets, str) or targets in taken:
            return None
        return ConditionMatch(f"target_modules is the string {targets[:60]!a}, but must be a list")

    return found


def initialised(*words: str) -> Condition:
    """One of these initialisations, which the engine refuses or does not reproduce."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        value = subject.config.fields.get("init_lora_weights")
        if not isinstance(value, str) or not value.lower().startswith(words):
            return None
        return ConditionMatch(f"init_lora_weights is {value[:40]!a}")

    return found


def initialised_beyond(*words: str) -> Condition:
    """A named initialisation other than these."""

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
    """One of these fields is missing from the config."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        fields = [key for key in keys if subject.config.fields.get(key) is None]
        return ConditionMatch(f"adapter_config.json has no {', '.join(fields)}") if fields else None

    return found


def fields_lacking(with_value: tuple[str, ...], as_key: tuple[str, ...]) -> Condition:
    """One of `with_value` has no value, or one of `as_key` is absent (null is allowed)."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        lacking = [key for key in with_value if subject.config.fields.get(key) is None]
        lacking += [key for key in as_key if key not in subject.config.fields]
        return ConditionMatch(f"adapter_config.json has no {', '.join(lacking)}") if lacking else None

    return found


def fields_null(with_value: tuple[str, ...], not_null: tuple[str, ...]) -> Condition:
    """One of `with_value` has no value, or one of `not_null` is null (it may be absent: it has a default)."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        fields = subject.config.fields
        lacking = [key for key in with_value if fields.get(key) is None]
        lacking += [key for key in not_null if key in fields and fields[key] is None]
        return ConditionMatch(f"adapter_config.json has no {', '.join(lacking)}") if lacking else None

    return found


def fraction_of_alpha(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`lora_alpha` is not a whole number."""
    alpha = subject.config.number("lora_alpha", 8)
    return None if type(alpha) is int and alpha >= 0 else ConditionMatch(f"lora_alpha is {alpha}")


def method_misspelled(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """`peft_type` is not in capitals, as PEFT writes it."""
    declared = (subject.written or subject.adapter).config.fields.get("peft_type")
    return (
        None
        if not isinstance(declared, str) or declared == declared.upper()
        else ConditionMatch(f"peft_type is {declared!a}")
    )
