"""The log of a mirror run. Each action is atomic; a refused one is logged, and the run continues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import Value


class MirrorFailure(Value):
    """An action that was refused, and the reason."""

    what: str
    reason: str


class MirrorResult(Value):
    """The result of a run: refs of versions `copied` and `updated` (states and metrics), aliases `pointed`,
    bases, adapters `deleted`. `gone`: adapters that would be deleted. `withheld`: withdrawn versions, whose
    files cannot be copied. `failures`: actions that were refused."""

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
    """One action; `is_change` is whether it changed anything."""

    is_change: bool = True


@dataclass
class MirrorLog:
    """The actions done so far."""

    copied: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    pointed: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    bases: list[Digest] = field(default_factory=list)
    failures: list[MirrorFailure] = field(default_factory=list)

    @contextmanager
    def record(self, what: str, done: list[str]) -> Iterator[MirrorAction]:
        """Runs the block as one action: adds `what` to `done` if it changed anything, or logs the failure if
        it was refused. `Unavailable` is passed on."""
        action = MirrorAction()
        try:
            yield action
        except Unavailable:
            raise
        except AdaptryError as error:
            self.failures.append(MirrorFailure(what=what, reason=error.message))
        else:
            if action.is_change:
                done.append(what)

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
