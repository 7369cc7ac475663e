"""The steps of a round and what came of them: each is whole, and one that is refused is told and passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.registry.records import Value


class MirrorFailure(Value):
    """A step that was refused, and why."""

    what: str
    reason: str


class MirrorResult(Value):
    """What a round did: refs of versions `copied`, `updated` (states and metrics) and `pointed` (aliases), bases, adapters `deleted`;
    `gone` are those that would be, `withheld` versions whose files nobody is given, `failures` what was refused."""

    copied: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    pointed: tuple[str, ...] = ()
    bases: tuple[Digest, ...] = ()
    deleted: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    withheld: tuple[str, ...] = ()
    failures: tuple[MirrorFailure, ...] = ()

    @property
    def is_change(self) -> bool:
        return bool(self.copied or self.updated or self.pointed or self.bases or self.deleted)


@dataclass
class MirrorAction:
    """Says at its end whether it changed anything."""

    is_change: bool = True


@dataclass
class MirrorLog:
    """What came of those that were taken so far."""

    copied: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    pointed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    bases: list[Digest] = field(default_factory=list)
    failures: list[MirrorFailure] = field(default_factory=list)

    @contextmanager
    def record(self, what: str, told: list[str]) -> Iterator[MirrorAction]:
        """Notes `what` where the block says that something changed, or why it was refused. Raises `Unavailable` on."""
        step = MirrorAction()
        try:
            yield step
        except Unavailable:
            raise
        except AdaptryError as error:
            self.failures.append(MirrorFailure(what=what, reason=error.message))
        else:
            if step.is_change:
                told.append(what)

    def result(self, **more: tuple[str, ...]) -> MirrorResult:
        return MirrorResult(
            copied=tuple(self.copied),
            updated=tuple(self.updated),
            pointed=tuple(self.pointed),
            bases=tuple(self.bases),
            deleted=tuple(self.deleted),
            failures=tuple(self.failures),
            **more,
        )
