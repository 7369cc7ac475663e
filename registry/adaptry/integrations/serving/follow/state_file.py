"""What a worker knows about itself across restarts: which names it has loaded, and which versions it has dropped.

A name is written down before it is loaded, so that whatever an engine has of ours is known as ours, whoever died in
between. With it an engine that comes back empty is filled again although the registry is away. The file is also what clients of an
engine without names of its own read (`names`: name → path).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from pydantic import BaseModel, ValidationError

from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable
from adaptry.core.files.durable import flush_folder, write_error
from adaptry.core.refs import AdapterName
from adaptry.registry.records import VersionInfo
from adaptry.registry.workers import RecallProof


class WorkerState(BaseModel):
    """`meant` is what each watched ref meant when it was last heard of; `ours` what was loaded under each name, `names`
    from where; `confirmed` are the names and digests that the registry knows this worker to have; `recalled` whose the
    versions are that were dropped here; `served` is what the engine called its base. `epoch` is the registry's that
    was last spoken to, and `proofs` its signatures of recalls, for when it has forgotten them."""

    meant: dict[str, VersionInfo] = {}
    ours: dict[str, VersionInfo] = {}
    names: dict[str, str] = {}
    confirmed: list[tuple[str, Digest]] = []
    recalled: dict[Digest, AdapterName] = {}
    served: tuple[str, ...] = ()
    epoch: str | None = None
    proofs: dict[Digest, RecallProof] = {}


class StateFile:
    """The file at `path`, which is made when something is remembered. One worker writes it."""

    def __init__(self, path: Path) -> None:
        """A file that cannot be read is as good as none: what the engine has is looked at anyway."""
        self.path = path
        self.state = WorkerState()
        with contextlib.suppress(FileNotFoundError, ValidationError, UnicodeDecodeError):
            self.state = WorkerState.model_validate_json(path.read_text(encoding="utf-8"))
        self._written = self.state.model_dump_json()

    def save_if_possible(self) -> None:
        """As `save`, where there is room; else it is written with whatever is saved next. For what must be done anyway."""
        with contextlib.suppress(Unavailable):
            self.save()

    def save(self) -> None:
        """Whole, or as it was; on the disk before this returns. Raises `StorageFull`, `Unavailable`."""
        text = self.state.model_dump_json()
        if text == self._written:
            return
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
            flush_folder(self.path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise write_error(error, self.path) from error
        self._written = text
