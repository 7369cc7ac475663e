"""A policy: the conditions that hold for a version before an alias may move to it, written as YAML.

    alias: prod
    require:
      - eval("gsm8k", "exact_match").value >= 0.70
      - noninferior("gsm8k", "exact_match", vs="prod", margin=0.01)

All conditions must hold. Grants, not policies, determine who may move the alias.
"""

from __future__ import annotations

from typing import Any

import yaml

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.gates.expression import PolicyCondition, require_visible
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.processes import yaml_reader
from adaptry.core.refs import AdapterName, parse_alias, parse_namespace
from adaptry.core.suggestions import suggestion

MAX_POLICY = 8 << 10
"""Characters of a policy."""
MAX_CONDITIONS = 50
_FIELDS = ("alias", "require", "description")


@dataclass(frozen=True, slots=True)
class PolicyScope:
    """The scope of a policy: one adapter, or all adapters of a namespace (`name` is None)."""

    namespace: str
    name: str | None = None

    @classmethod
    def parse(cls, text: str) -> PolicyScope:
        """`acme` or `acme/tone`. Raises `InvalidRef`."""
        if "/" in text:
            adapter = AdapterName.parse(text)
            return cls(adapter.namespace, adapter.name)
        return cls(parse_namespace(text))

    @property
    def adapter(self) -> AdapterName | None:
        return AdapterName.parse(str(self)) if self.name is not None else None

    def __str__(self) -> str:
        return self.namespace if self.name is None else f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Policy:
    """The alias, and its conditions with their original text."""

    alias: str
    conditions: tuple[PolicyCondition, ...]
    description: str = ""

    @classmethod
    def parse(cls, text: str) -> Policy:
        """A new policy. Raises `Invalid` and `InvalidRef`, with the line of the error."""
        require_visible(text, "a policy")
        policy = cls._read(text, is_new=True)
        for condition in policy.conditions:  # YAML can write any character as an escape
            require_visible(condition.source, "a condition")
        return policy

    @classmethod
    def stored(cls, text: str) -> Policy:
        """A policy that was accepted before, possibly by an older version of Adaptry that checked less."""
        return cls._read(text, is_new=False)

    @classmethod
    def _read(cls, text: str, *, is_new: bool) -> Policy:
        if len(text) > MAX_POLICY:
            raise Invalid(f"a policy may have at most {MAX_POLICY:,} characters; this one has {len(text):,}")
        document = yaml_reader.loads(text, "the policy")
        if not isinstance(document, dict):
            raise Invalid("a policy must be a map with `alias` and `require`; docs/gates.md has examples")
        lines = _lines(text)
        for field in document:
            if field not in _FIELDS:
                line = lines.fields.get(field, 1)
                raise Invalid(
                    f"line {line}: a policy has no {field[:60]!a}{suggestion(field, _FIELDS)}"
                    f" (it has {', '.join(_FIELDS)})"
                )
        if is_new and lines.repeated:
            raise Invalid(f"line {lines.repeated}: a policy has each field only once, and no merge keys (<<)")
        return cls(_alias(document), _conditions(document, lines), _description(document))


def policy_digest(text: str) -> Digest:
    """The digest of a policy's original text."""
    return Digest.of(text.encode())


@dataclass(frozen=True, slots=True)
class _Lines:
    """The line numbers, from 1, of a policy's fields and conditions; and that of a field that is repeated or
    merges others (`<<`), since YAML would keep only some of the values.
    """

    fields: dict[str, int]
    conditions: tuple[int, ...]
    repeated: int | None = None


def _lines(text: str) -> _Lines:
    """The lines of a text that has been parsed before, so that it is a short map without YAML aliases."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    fields: dict[str, int] = {}
    conditions: tuple[int, ...] = ()
    repeated: int | None = None
    for key, value in root.value:
        if key.value in fields or key.value == "<<":
            repeated = repeated or key.start_mark.line + 1
        fields[str(key.value)] = key.start_mark.line + 1
        if key.value == "require" and isinstance(value, yaml.SequenceNode):
            conditions = tuple(item.start_mark.line + 1 for item in value.value)
    return _Lines(fields, conditions, repeated)


def _alias(document: dict[str, Any]) -> str:
    """(`Any`: YAML.)"""
    alias = document.get("alias")
    if not isinstance(alias, str):
        raise Invalid("a policy must name its alias, as in `alias: prod`")
    return parse_alias(alias)


def _description(document: dict[str, Any]) -> str:
    """(`Any`: YAML.)"""
    text = document.get("description", "")
    if not isinstance(text, str):
        raise Invalid("the description of a policy must be a string")
    return text


def _conditions(document: dict[str, Any], lines: _Lines) -> tuple[PolicyCondition, ...]:
    """(`Any`: YAML.)"""
    required = document.get("require")
    if not isinstance(required, list) or not required:
        raise Invalid("a policy must list its conditions under `require:`, one per line, each after a dash")
    if len(required) > MAX_CONDITIONS:
        raise Invalid(f"a policy may have at most {MAX_CONDITIONS} conditions; this one has {len(required)}")
    return tuple(_condition(text, line) for text, line in zip(required, lines.conditions, strict=True))


def _condition(text: object, line: int) -> PolicyCondition:
    if not isinstance(text, str):
        raise Invalid(
            f"line {line}: a condition must be a string; put one with a colon or a leading ! in quotation"
            " marks"
        )
    try:
        return PolicyCondition.stored(text)
    except Invalid as error:
        raise Invalid(f"line {line}: {error.message}, in the condition {text[:100]!a}") from None
