"""Whether a version may be served by the engine that runs here: its base by content, and the engine's own rules and limits.

No engine compares the base, and what passes the engine's checks may still be served as something else than was trained.
So nothing is loaded that is not known to fit, and what is refused says why and what repairs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from adaptry.adapter.view import open_dir
from adaptry.checkpoint import open_checkpoint
from adaptry.checks.runtimes import Runtime, verdict
from adaptry.digest import Digest
from adaptry.errors import AdaptryError, Invalid, NotFound, Refused
from adaptry.fingerprint import BaseRecord, Level
from adaptry.fingerprinting import fingerprint
from adaptry.fingerprinting.matching import match
from adaptry.known_base import base_of
from adaptry.records import VersionInfo
from adaptry.registry import Registry
from adaptry.running import Running

_ALIKE: frozenset[Level] = frozenset({"exact", "same_weights", "cast"})


@dataclass(frozen=True, slots=True)
class Fitness:
    """An engine's runtime with its limits, and the base that it serves.

    `even_unlike` lets through what the engine serves otherwise than it was trained, but never what it refuses, nor
    another base.
    """

    runtime: Runtime
    base: BaseRecord
    base_name: str
    even_unlike: bool = False
    _alike: dict[Digest, bool] = field(default_factory=dict)

    def require(self, registry: Registry, version: VersionInfo, folder: Path) -> None:
        """Raises `Refused` for a version that must not be served here; its files are in `folder`."""
        label = f"{version.name}@{version.number}"
        if version.base_id is None or version.base_status != "verified":
            raise Refused(
                f"{label} was trained on a base that is not registered ({version.base_name or 'it names none'}): "
                "adaptry base add FOLDER --name NAME"
            )
        if not self._is_alike(registry, version.base_id):
            raise Refused(
                f"{label} was trained on {version.base_name or version.base_id.brief}, and the engine serves {self.base_name}"
            )
        found = verdict(open_dir(folder), self.runtime, base_of(registry, version))
        if found.outcome == "refused" or (found.outcome == "not_as_trained" and not self.even_unlike):
            worst = found.findings[0]
            raise Refused(f"{label} is not for this engine: {worst.reason} → {worst.remedy}")

    def _is_alike(self, registry: Registry, base: Digest) -> bool:
        """The engine's base itself, or a copy of its weights in another form."""
        if base not in self._alike:
            is_same = base == self.base.id
            self._alike[base] = is_same or match(registry.base_record(base), self.base).level in _ALIKE
        return self._alike[base]


def fitness_of(
    registry: Registry,
    found: Running,
    said: Runtime | None,
    base: str | None,
    *,
    even_unlike: bool = False,
) -> Fitness:
    """What a running engine is, as far as it tells; what was said of it (limits that it keeps to itself) goes first.

    The base is `base`, else what the engine serves: a folder on this machine by its content, or a name that the registry
    knows. Raises `NotFound` where it is none of these, `Invalid` where another engine runs there.
    """
    told = found.runtime
    if said is not None and said.engine != told.engine:
        raise Invalid(f"the engine is {told}, and not {said.engine}")
    options: Mapping[str, str] = {**told.options, **(said.options if said else {})}
    version = said.version if said and said.version else told.version
    name, record = _base(registry, found, base)
    return Fitness(Runtime(told.engine, version, options), record, name, even_unlike)


def _base(registry: Registry, found: Running, base: str | None) -> tuple[str, BaseRecord]:
    for name in [base] if base else found.models:
        if not base and (Path(name) / "config.json").is_file():
            try:
                return name, fingerprint(open_checkpoint(name))
            except AdaptryError:
                continue
        try:
            info = registry.base(name)
        except (Invalid, NotFound):
            if base:
                raise
            continue
        return (info.names[0] if info.names else info.id.brief), registry.base_record(info.id)
    told = ", ".join(found.models[:3]) or "no model"
    raise NotFound(
        f"the engine serves {told}, which is no folder here and no base that the registry knows: say which it is (--base NAME)"
    )
