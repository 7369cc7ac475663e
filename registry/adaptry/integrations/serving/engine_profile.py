"""Profiles an engine over HTTP: its limits, as far as it reports them, and its base by content."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes import Runtime
from adaptry.core.errors import CheckFailed, Invalid, NotFound
from adaptry.core.refs import may_be_folder
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.compatibility import EngineProfile
from adaptry.integrations.serving.served_base import identify_served_base
from adaptry.registry.interface import Registry


def inspect_engine(
    registry: Registry, info: EngineInfo, configured: Runtime | None = None, base: str | None = None
) -> EngineProfile:
    """The profile of a probed engine. `configured` overrides its reports; engines do not report all limits.

    The base is `base` if given, else the model that the engine reports: a folder on this machine, by content,
    or a name in the registry. A relative path starts from the engine's working directory. Raises `NotFound`
    if the base is none of these, `Invalid` if another engine runs there, `CheckFailed`.
    """
    reported = info.runtime
    if configured is None:
        return EngineProfile(reported, _base(registry, info, base))
    if configured.engine != reported.engine:
        raise Invalid(f"the engine is {reported}, and not {configured.engine}")
    runtime = Runtime(
        reported.engine, configured.version or reported.version, {**reported.options, **configured.options}
    )
    return EngineProfile(runtime, _base(registry, info, base))


def _base(registry: Registry, info: EngineInfo, configured: str | None) -> BaseRecord:
    if configured:
        return identify_served_base(registry, configured, configured=configured)
    for name in info.models:
        folder = _folder(info, name)
        if folder is not None and (folder / "config.json").is_file():
            return _from_folder(registry, info, str(folder))
    for name in info.models:
        try:
            return registry.bases.record(registry.bases.get(name).id)
        except (Invalid, NotFound):
            continue
    reported = ", ".join(info.models[:3]) or "no model"
    if info.folder is None and any(map(may_be_folder, info.models)):
        raise NotFound(
            f"the engine serves {reported}. If that is a path, it belongs to the engine's working directory,"
            " which is unknown here: start the engine with the whole path, or pass the base's name in the"
            " registry (--base NAME)"
        )
    raise NotFound(
        f"the engine serves {reported}, which is neither a folder here nor a registered base: pass its name"
        " (--base NAME)"
    )


def _folder(info: EngineInfo, name: str) -> Path | None:
    """The folder that the engine means by a model's name; None if this cannot be determined."""
    if Path(name).is_absolute():
        return Path(name)
    return info.folder / name if info.folder else None


def _from_folder(registry: Registry, info: EngineInfo, folder: str) -> BaseRecord:
    """The base that the engine read from the folder when it started. If the folder has another base now, the
    engine still has the base that it was found to serve."""
    if info.base_id is None:
        return identify_served_base(registry, folder, started_at=info.started_at)
    try:
        record = identify_served_base(registry, folder)
    except CheckFailed:
        return registry.bases.record(info.base_id)
    return record if record.id == info.base_id else registry.bases.record(info.base_id)
