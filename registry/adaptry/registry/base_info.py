"""Values of base models, as the registry and its clients exchange them."""

from __future__ import annotations

from datetime import datetime

from adaptry.adapters.base_record import Match, Roots
from adaptry.core.digest import Digest
from adaptry.core.display import short_repr
from adaptry.core.identity import BaseVisibility
from adaptry.core.manifest import FileEntry
from adaptry.registry.records import Value


class BaseInfo(Value):
    """A base as listed: its id, its names, its shape in numbers, and the available evidence."""

    id: Digest
    names: tuple[str, ...] = ()
    architecture: Digest
    model_type: str | None = None
    parameters: int = 0
    dtypes: tuple[str, ...] = ()
    roots: Roots | None = None
    tokenizer: Digest | None = None
    stored: tuple[FileEntry, ...] = ()
    adapters: int = 0
    visibility: BaseVisibility = "internal"
    """Older servers have no such field, and all their bases are internal."""
    created_at: datetime
    created_by: str

    @property
    def is_stored(self) -> bool:
        """Whether its weights are stored here, so that everyone who may read it can merge."""
        return bool(self.stored)

    def __repr__(self) -> str:
        stored = "stored" if self.is_stored else "not stored"
        numbers = f"{self.parameters:,} parameters"
        return short_repr(self, ", ".join(self.names), self.model_type, numbers, stored, self.id.brief)


class BaseEdit(Value):
    """User-editable fields of a base. None leaves a field unchanged."""

    visibility: BaseVisibility | None = None


class BaseMatch(Value):
    """A known base, and its similarity to the given one."""

    base: BaseInfo
    match: Match
