"""The role of a registry that manages aliases: names that move from version to version."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pydantic import Field

from adaptry.core.digest import Digest
from adaptry.core.errors import NotFound
from adaptry.core.gates import MAX_CONDITION
from adaptry.core.refs import AdapterName
from adaptry.core.value import FreeText
from adaptry.registry.records import AliasInfo, Value

PRODUCTION = "prod"
"""The alias that promotions and rollbacks move unless another is named."""
ALIAS_MOVED = "alias.moved"
"""The kind of event for a move of an alias, with its new (`to`) and old version (`was`)."""


class MoveRequest(Value):
    """Options of a move: one more `condition` in addition to the alias's policies, or the reason for
    overriding them.
    """

    condition: str | None = Field(default=None, min_length=1, max_length=MAX_CONDITION)
    override: FreeText | None = Field(default=None, min_length=3, max_length=1024)


AS_POLICIES_SAY = MoveRequest()


def unknown_alias(name: AdapterName, alias: str) -> NotFound:
    """The error for a missing alias."""
    return NotFound(f"{name} has no alias {alias[:80]!a}; `adaptry alias ls {name}` lists its aliases")


class Aliases(ABC):
    """The aliases of adapters."""

    @abstractmethod
    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        """An adapter's aliases in name order. Raises `NotFound`."""

    @abstractmethod
    def get(self, name: AdapterName, alias: str) -> AliasInfo:
        """One alias; the cost does not depend on the number of the adapter's aliases. Raises `NotFound`."""

    @abstractmethod
    def move(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        was: int | None,
        request: MoveRequest = AS_POLICIES_SAY,
    ) -> AliasInfo:
        """Compare-and-swap: moves only if the alias's generation is `was` (None: it does not exist), and the
        conditions of its policies are met (`registry.policies`).

        Raises `Conflict` with the state found, `CheckFailed` with every condition that is not met,
        `MissingDependency` where conditions cannot be evaluated, `NotFound`, `PermissionDenied`,
        `InvalidRef`, and `Invalid` for a condition that cannot be read.
        """

    @abstractmethod
    def remove(self, name: AdapterName, alias: str, was: int) -> None:
        """Removes an alias whose generation is `was`. Raises the errors of `move`."""
