"""What an engine that answers over HTTP serves: its limits, as far as it tells them, and its base by content."""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes import Runtime
from adaptry.core.errors import Invalid, NotFound
from adaptry.integrations.engine_probe import EngineInfo
from adaptry.integrations.serving.compatibility import EngineProfile
from adaptry.integrations.serving.served_base import identify_served_base
from adaptry.registry.interface import Registry


def inspect_engine(
    registry: Registry, found: EngineInfo, configured: Runtime | None = None, base: str | None = None
) -> EngineProfile:
    """The engine that was found, and the base it serves. What was said of it (limits that it keeps to itself) goes first.

    The base is `base`, else what the engine says it serves: a folder on this machine by its content, or a name that the
    registry knows. Raises `NotFound` where it is none of these, `Invalid` where another engine runs there, `CheckFailed`.
    """
    reported = found.runtime
    if configured is None:
        return EngineProfile(reported, _base(registry, found, base))
    if configured.engine != reported.engine:
        raise Invalid(f"the engine is {reported}, and not {configured.engine}")
    runtime = Runtime(
        reported.engine, configured.version or reported.version, {**reported.options, **configured.options}
    )
    return EngineProfile(runtime, _base(registry, found, base))


def _base(registry: Registry, found: EngineInfo, configured: str | None) -> BaseRecord:
    if configured:
        return identify_served_base(registry, configured, configured=configured)
    for name in found.models:
        if (Path(name) / "config.json").is_file():
            return identify_served_base(registry, name)
    for name in found.models:
        try:
            return registry.base_record(registry.base(name).id)
        except (Invalid, NotFound):
            continue
    reported = ", ".join(found.models[:3]) or "no model"
    raise NotFound(
        f"the engine serves {reported}, which is no folder here and no base that the registry knows: say which it is (--base NAME)"
    )
