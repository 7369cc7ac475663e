"""References to a hub: `hf:org/name`, with `@revision` for a revision other than `main`."""

from __future__ import annotations

import re
from typing import Self

from adaptry.core.errors import InvalidRef
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import parse_base_name

GRAMMAR = "write hf:ORG/NAME, or hf:ORG/NAME@REVISION (a branch, a tag or a commit)"
_MARK = "hf:"
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")


def is_hub_ref(text: str) -> bool:
    """Whether a text is a reference to a hub."""
    return text.startswith(_MARK)


@dataclass(frozen=True, slots=True)
class HubRef:
    """A model repository on a hub, and a revision (None: `main`)."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        if not is_hub_ref(text):
            raise InvalidRef(f"not a name on a hub: {text[:200]!r} ({GRAMMAR})")
        repository, at, revision = text.removeprefix(_MARK).partition("@")
        if at and (not _REVISION.fullmatch(revision) or ".." in revision):
            raise InvalidRef(f"not a revision on a hub: {revision[:80]!r} ({GRAMMAR})")
        try:
            return cls(parse_base_name(repository), revision or None)
        except InvalidRef as error:
            raise InvalidRef(f"not a name on a hub: {text[:200]!r} ({GRAMMAR}; {error.message})") from None

    def __str__(self) -> str:
        return f"{_MARK}{self.repository}" + (f"@{self.revision}" if self.revision else "")
