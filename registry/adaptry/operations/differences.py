"""The differences between two adapters, from values: their specs, configs, metrics and digests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.last_part import last_part
from adaptry.adapters.spec import Spec
from adaptry.core.display import format_number, format_size
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import VersionInfo

# Config fields that are compared as part of the spec.
_IN_SPEC = frozenset(["peft_type", "base_model_name_or_path", "task_type", "peft_version"])


@dataclass(frozen=True, slots=True)
class DiffSide:
    """The compared data of one of the two adapters. (`Any`: a config's fields are JSON.)"""

    spec: Spec
    config: Mapping[str, Any]
    version: VersionInfo | None

    @classmethod
    def of(cls, adapter: Adapter, version: VersionInfo | None) -> DiffSide:
        return cls(adapter.spec, adapter.config.fields, version)


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference, as text; a side that lacks the property is empty."""

    what: str
    before: str
    after: str

    def as_json(self) -> dict[str, str]:
        """The three fields as a dictionary."""
        return asdict(self)


def find_differences(before: DiffSide, after: DiffSide) -> tuple[Difference, ...]:
    """The differences, the most important first; empty if nothing differs."""
    pairs = [*_of_specs(before, after), *_of_configs(before, after), *_of_versions(before, after)]
    return tuple(Difference(what, old, new) for what, old, new in pairs if old != new)


def _of_specs(before: DiffSide, after: DiffSide) -> Iterator[tuple[str, str, str]]:
    yield from zip(_FACTS, _facts(before.spec), _facts(after.spec), strict=True)
    old_modules, new_modules = _modules(before.spec), _modules(after.spec)
    for path in sorted(old_modules.keys() | new_modules.keys()):
        yield path, old_modules.get(path, ""), new_modules.get(path, "")


_FACTS = ("method", "base", "task", "traits", "dtypes", "parameters", "size", "PEFT")


def _facts(spec: Spec) -> tuple[str, ...]:
    return (
        spec.method,
        spec.base_name or "",
        spec.task or "",
        ", ".join(spec.traits),
        ", ".join(spec.dtypes),
        f"{spec.parameters:,}",
        format_size(spec.size),
        spec.peft_version or "",
    )


def _modules(spec: Spec) -> dict[str, str]:
    """The modules as lines: modules with the same name share a line if they are equal; otherwise each has its
    own.
    """
    by_name: dict[str, dict[str, str]] = {}
    for module in spec.modules:
        text = f"rank {module.rank}, scale {format_number(module.scale)}, {module.fan_in} → {module.fan_out}"
        by_name.setdefault(last_part(module.path), {})[module.path] = text
    found: dict[str, str] = {}
    for name, modules in by_name.items():
        if len(set(modules.values())) == 1:
            found[name] = f"{len(modules)} × {next(iter(modules.values()))}"
        else:
            found |= modules
    return found | {f"{extra.target} (replaced)": str(list(extra.shape)) for extra in spec.extras}


def _of_configs(before: DiffSide, after: DiffSide) -> Iterator[tuple[str, str, str]]:
    for key in sorted((before.config.keys() | after.config.keys()) - _IN_SPEC):
        if _is_set(before.config, key) or _is_set(after.config, key):
            yield f"config {key}", _config_text(before.config, key), _config_text(after.config, key)


def _is_set(config: Mapping[str, Any], key: str) -> bool:
    """Whether the option is on: PEFT writes every option; other tools write only those that they set."""
    return config.get(key) not in (None, False, [], {})


def _config_text(config: Mapping[str, Any], key: str) -> str:
    """The text of a config field. Lists of names are sorted, since their order has no meaning."""
    if key not in config:
        return ""
    value = config[key]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = sorted(value)
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _of_versions(before: DiffSide, after: DiffSide) -> Iterator[tuple[str, str, str]]:
    """The differences that only two versions can have: a folder has no metrics."""
    old, new = before.version, after.version
    if old is None or new is None:
        return
    for name in sorted(old.metrics.keys() | new.metrics.keys()):
        yield f"metric {name}", _metric(old.metrics, name), _metric(new.metrics, name)
    yield "weights", old.weights.brief, new.weights.brief
    yield "state", old.state, new.state


def _metric(metrics: Mapping[str, float], name: str) -> str:
    return format_number(metrics[name]) if name in metrics else ""
