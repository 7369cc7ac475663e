"""The role of a registry that keeps adapters by their names."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page


class Adapters(ABC):
    """Adapters by name: made, listed, edited, renamed, deleted."""

    @abstractmethod
    def create(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """A new, empty adapter; private unless `edit` says otherwise. Raises `Conflict`, `PermissionDenied`.

        Reviving a deleted name goes on with its numbering.
        """

    @abstractmethod
    def get(self, name: AdapterName) -> AdapterInfo:
        """Raises `NotFound`."""

    @abstractmethod
    def list(
        self, namespace: str | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[AdapterInfo]:
        """Adapters in name order, of one namespace or of all that may be read."""

    @abstractmethod
    def edit(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """Raises `NotFound`, `PermissionDenied`."""

    @abstractmethod
    def rename(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        """Versions, aliases and history go along. Raises `NotFound`, `PermissionDenied`, `Conflict` where
        `to` is taken.
        """

    @abstractmethod
    def delete(self, name: AdapterName) -> None:
        """Leaves a tombstone: only its namespace can revive the name. Raises `NotFound`, `PermissionDenied`,
        `Conflict` (aliased).
        """

    @abstractmethod
    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        """What happened to an adapter, newest first. Raises `NotFound`."""

    @abstractmethod
    def renamed_to(self, name: AdapterName) -> AdapterName | None:
        """Where an adapter of that name went when it was renamed, as far as the caller may read it there."""
