"""Lock files: refs pinned to digests, in a file that a deployment keeps under version control.

A ref such as `acme/tone@prod` moves, but the digest that it had when it was locked does not. Pulling by the
lock file returns exactly those bytes or an error; checking it lists the refs that have moved since.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, ProtocolMismatch
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import VersionInfo
from adaptry.registry.versions import Versions

SCHEMA = 1
_LIMITS = strictjson.JsonLimits(size=4 << 20, depth=6, nodes=100_000)


class _Value(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")


class PinnedRef(_Value):
    """A ref as the user wrote it, and the version that it selected."""

    ref: str
    name: AdapterName
    number: int
    digest: Digest
    base: Digest | None = None

    @property
    def exact(self) -> Ref:
        """The ref that always selects this version."""
        return Ref.of_revision(self.name, self.digest)

    @property
    def folder(self) -> str:
        """The name of its folder: the ref, with only characters that file systems allow."""
        return self.ref.replace(":", "-")


class LockFile(_Value):
    """Pins in ref order, each ref once."""

    lock: int = SCHEMA
    pins: tuple[PinnedRef, ...]

    @classmethod
    def parse(cls, data: bytes, label: str) -> LockFile:
        """Parses a lock file. Raises `Invalid`, or `ProtocolMismatch` for one that a newer Adaptry wrote."""
        document = strictjson.loads(data, _LIMITS, label)
        schema = document.get("lock") if isinstance(document, dict) else None
        if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
            raise ProtocolMismatch(
                f"{label} has schema {schema}, but this Adaptry reads schema {SCHEMA}: upgrade adaptry"
            )
        if schema != SCHEMA or isinstance(schema, bool):
            raise Invalid(f"{label} is not a lock file; `adaptry lock REF… -o {label}` writes one")
        try:
            found = cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"{label} is not a lock file: {place}: {first['msg']}") from None
        for pin in found.pins:
            if Ref.parse(pin.ref).name != pin.name:
                raise Invalid(f"{label}: the pin of {pin.ref} names another adapter, {pin.name}")
        return found

    def to_text(self) -> str:
        """JSON in which version control can merge edits: one field per line, sorted by ref."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), indent=2) + "\n"


class StalePin(_Value):
    """A pin whose ref now selects another version, `now`; None if it selects no version."""

    pin: PinnedRef
    now: VersionInfo | None = None

    def sentence(self) -> str:
        locked = f"{self.pin.ref} was locked at version {self.pin.number} ({self.pin.digest.brief})"
        if self.now is None:
            return f"{locked} and no longer exists"
        return f"{locked} and is now version {self.now.number} ({self.now.digest.brief})"


def pin_refs(versions: Versions, refs: Iterable[Ref]) -> LockFile:
    """Pins the refs to their current versions. Raises `NotFound`, `Conflict`."""
    pins = {str(ref): _pin(ref, versions.get(ref)) for ref in refs}
    return LockFile(pins=tuple(pins[ref] for ref in sorted(pins)))


def find_stale_pins(versions: Versions, lock: LockFile) -> tuple[StalePin, ...]:
    """The pins whose refs have moved."""
    found = []
    for entry in lock.pins:
        try:
            now = versions.get(Ref.parse(entry.ref))
        except (NotFound, Conflict):
            found.append(StalePin(pin=entry))
            continue
        if now.digest != entry.digest:
            found.append(StalePin(pin=entry, now=now))
    return tuple(found)


def _pin(ref: Ref, version: VersionInfo) -> PinnedRef:
    return PinnedRef(
        ref=str(ref), name=version.name, number=version.number, digest=version.digest, base=version.base_id
    )
