"""Conditions of a grant: a closed set of comparisons of the alias, the new state, and the time.

Written `alias=stage,canary`, `alias!=prod`, `state=deprecated`, `state!=revoked`, `before=2026-12-31T18:00Z`
or `after=…`. All conditions of a grant must hold. A comparison with a value that the action does not have is
false.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, Self, cast, get_args

from adaptry.core.access.actions import Action
from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.states import State

Field = Literal["alias", "state", "before", "after"]

_FORM = lazy_pattern(r"(alias|state)(!?=)(.+)|(before|after)(=)(.+)")
_VALUE = lazy_pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STATES = frozenset(get_args(State))
_FIELDS: Mapping[Field, frozenset[Action] | None] = {
    "alias": frozenset({"alias.move"}),
    "state": frozenset({"state.set"}),
    "before": None,
    "after": None,
}
"""The actions that each is about; None is all but `read`, which has no conditions."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that conditions are compared with. `state` is a version's new state."""

    alias: str | None = None
    state: str | None = None
    now: datetime | None = None


NOTHING_KNOWN = Facts()


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison. `values` are names, or a single time."""

    field: Field
    is_negated: bool
    values: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses a condition such as `alias!=prod`. Raises `Invalid`."""
        match = _FORM.fullmatch(text)
        if match is None:
            raise Invalid(
                f"not a condition: {text[:80]!a} (such as alias!=prod, alias=stage,canary, state=deprecated,"
                " before=2026-12-31T18:00Z)"
            )
        field, operator, value = (part for part in match.groups() if part is not None)
        values = (_time(value).isoformat(),) if field in ("before", "after") else tuple(value.split(","))
        if field in ("alias", "state") and not all(_VALUE.fullmatch(one) for one in values):
            raise Invalid(f"not names after {operator} in the condition {text[:80]!a}")
        if field == "state" and (unknown := set(values) - _STATES):
            raise Invalid(f"no state {min(unknown)!a} (one of: {', '.join(sorted(_STATES))})")
        return cls(cast(Field, field), operator == "!=", values)

    def __str__(self) -> str:
        return f"{self.field}{'!=' if self.is_negated else '='}{','.join(self.values)}"

    def is_about(self, action: Action) -> bool:
        """Whether a grant of the action may have this condition."""
        actions = _FIELDS[self.field]
        return action != "read" if actions is None else action in actions

    def holds(self, facts: Facts) -> bool:
        if self.field in ("before", "after"):
            if facts.now is None:
                return False
            limit = datetime.fromisoformat(self.values[0])
            return facts.now < limit if self.field == "before" else facts.now >= limit
        found = facts.alias if self.field == "alias" else facts.state
        if found is None:
            return False
        if self.is_negated:  # `alias!=prod` also excludes PROD, which would take the place of prod
            return found.lower() not in {value.lower() for value in self.values}
        return found in self.values


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"not a time: {text[:80]!a} (such as 2026-12-31T18:00Z)") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
