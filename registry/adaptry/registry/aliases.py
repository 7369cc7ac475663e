"""The role of a registry that manages aliases: names that move from version to version."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.registry.records import AliasInfo


class Aliases(ABC):
    """The aliases of adapters."""

    @abstractmethod
    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        """In name order. Raises `NotFound`."""

    @abstractmethod
    def move(self, name: AdapterName, alias: str, to: Digest, was: int | None) -> AliasInfo:
        """Compare-and-swap: moves only if the alias's generation is `was` (None: it does not exist).

        Raises `Conflict` with the state found, `NotFound`, `PermissionDenied`, `InvalidRef`.
        """

    @abstractmethod
    def remove(self, name: AdapterName, alias: str, was: int) -> None:
        """Raises what `move` raises."""
