"""The access decision: a pure function of grants, a token's limit, an action and a target.

There are no deny rules: an action that no grant allows is refused. A token only narrows its principal's
grants. Every action also needs `read` on the same resource, so that hidden objects cannot be changed. The
exception is `inference.authorize`, which changes nothing and checks the rights of another principal.
"""

from __future__ import annotations

from collections.abc import Sequence

from adaptry.core.access.actions import Action
from adaptry.core.access.conditions import NOTHING_KNOWN, Facts
from adaptry.core.access.grants import Grant, Limit
from adaptry.core.lazy_dataclass import dataclass

_WITHOUT_READ = frozenset[Action]({"inference.authorize"})


@dataclass(frozen=True, slots=True)
class Target:
    """An adapter by namespace and name; with `name` None, a namespace as a whole."""

    namespace: str
    name: str | None = None
    facts: Facts = NOTHING_KNOWN

    def __str__(self) -> str:
        text = self.namespace if self.name is None else f"{self.namespace}/{self.name}"
        return f"{text}@{self.facts.alias}" if self.facts.alias else text


@dataclass(frozen=True, slots=True)
class Decision:
    """`grant` is the deciding grant: it allows the action, or would if its conditions held. `reason` is a
    sentence for people."""

    is_allowed: bool
    reason: str
    grant: Grant | None = None


def decide(grants: Sequence[Grant], limit: Limit | None, action: Action, target: Target) -> Decision:
    """Whether a holder of `grants`, with a token narrowed to `limit`, may do `action` to `target`."""
    if limit is not None and not limit.allows(action, target.namespace, target.name):
        return Decision(False, f"the token does not allow {action} on {target}")
    about = [one for one in grants if one.allows(action, target.namespace, target.name)]
    if not about:
        return Decision(False, f"no grant allows {action} on {target}")
    grant = next((one for one in about if one.holds(target.facts)), None)
    if grant is None:
        return Decision(False, f"a condition does not hold: {about[0].describe()}", about[0])
    if action not in _WITHOUT_READ and not any(
        one.allows("read", target.namespace, target.name) for one in grants
    ):
        return Decision(False, f"no grant allows read on {target}, which {action} needs", grant)
    return Decision(True, grant.describe(), grant)
