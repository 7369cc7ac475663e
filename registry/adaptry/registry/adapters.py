"""The role of a registry that manages adapters by name."""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.core.refs import AdapterName
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page


class Adapters(ABC):
    """Creates, lists, edits, renames and deletes adapters."""

    @abstractmethod
    def create(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """Creates an empty adapter, private unless `edit` sets another visibility. Raises `Conflict`,
        `PermissionDenied`.

        An adapter with a deleted adapter's name continues its version numbers.
        """

    @abstractmethod
    def get(self, name: AdapterName) -> AdapterInfo:
        """Gets an adapter. Raises `NotFound`."""

    @abstractmethod
    def list(
        self,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "name",
        reverse: bool = False,
    ) -> Page[AdapterInfo]:
        """Adapters of one namespace or of all that the caller may read, in an order (`sort_keys`). Raises
        `Invalid` for an unknown sort key.

        While adapters change, a later page may repeat or miss those whose place in the order changed.
        """

    @abstractmethod
    def edit(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        """Changes an adapter's description, tags or visibility. Raises `NotFound`, `PermissionDenied`."""

    @abstractmethod
    def rename(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        """Renames an adapter with its versions, aliases and history. Raises `NotFound`, `PermissionDenied`,
        `Conflict` if `to` is taken.
        """

    @abstractmethod
    def delete(self, name: AdapterName) -> None:
        """Deletes an adapter; only its namespace can use the name again. Raises `NotFound`,
        `PermissionDenied`, `Conflict` (aliased).
        """

    @abstractmethod
    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        """The events of an adapter, newest first. Raises `NotFound`."""

    @abstractmethod
    def renamed_to(self, name: AdapterName) -> AdapterName | None:
        """The new name of a renamed adapter, if the caller may read it there."""
