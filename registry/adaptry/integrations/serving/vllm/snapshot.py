"""Lists the adapters in a vLLM for its worker's report: all loaded ones, by any caller, and draining ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Label
from adaptry.integrations.serving.engines import EngineAdapter
from adaptry.integrations.serving.vllm.draining_adapters import ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.names import parse_model_name
from adaptry.integrations.serving.vllm.worker import EngineSnapshot
from adaptry.registry.workers import Condition, ResidentReport


def take_snapshot(
    vllm: InProcessVllm,
    names: Mapping[str, ResolvedAdapter],
    draining: Iterable[ResolvedAdapter],
    foreign_draining: Iterable[Any],
    problems: Mapping[str, str],
    now: datetime,
) -> EngineSnapshot:
    """The engine's state: `names` has the resolved version of each name, `draining` the replaced ones, and
    `foreign_draining` the requests of withdrawn versions that other callers loaded. (`Any`:
    `LoRARequest`.)"""
    found: dict[tuple[str, Digest], ResidentReport] = {}
    loads: list[EngineAdapter] = []
    for one in draining:
        _add(found, one, "draining")
        loads += _loads(one)
    for name, one in names.items():
        is_loaded = vllm.loaded.get(name) is one.request
        _add(found, one, "serving" if is_loaded else "loading")
        loads += _loads(one)
    loads += map(load_of, foreign_draining)
    foreign = {name: request for name, request in vllm.loaded.items() if name not in names}
    for name, request in foreign.items():
        adapter, target = load_of(request), parse_model_name(name)
        if adapter.digest is not None and target is not None and target.single is not None:
            loads.append(adapter)
            found[name, adapter.digest] = _resident(name, target.single.name, adapter.digest, "serving", now)
    return EngineSnapshot(
        residents=tuple(found.values()),
        loaded=tuple(loads),
        in_use=vllm.names_in_use(),
        refs=frozenset(name for name, one in names.items() if _is_alias(name, one)),
        problems={**problems, **{name: _FOREIGN for name in foreign if parse_model_name(name)}},
    )


_FOREIGN = (
    "loaded through vLLM's HTTP interface, not by the plugin, so it does not follow the registry; if"
    " `adaptry follow` loaded it, stop that: one engine has one worker"
)


def _is_alias(name: str, one: ResolvedAdapter) -> bool:
    ref = one.target.single
    return ref is not None and name == str(ref) and isinstance(ref.selector, Label)


def load_of(request: Any) -> EngineAdapter:
    """The loaded adapter of a request, under its own name. (`Any`: vLLM's `LoRARequest`.)"""
    return EngineAdapter(str(request.lora_name), str(request.lora_path))


def _loads(one: ResolvedAdapter) -> list[EngineAdapter]:
    """The loaded adapter, once for each version in it."""
    name = str(one.request.lora_name)
    return [EngineAdapter(name, str(part.path)) for part in one.parts]


def _add(found: dict[tuple[str, Digest], ResidentReport], one: ResolvedAdapter, condition: Condition) -> None:
    for part in one.parts:
        found[one.name, part.digest] = _resident(
            one.name, part.version.name, part.digest, condition, one.since, one.last_used
        )


def _resident(
    served_as: str,
    name: AdapterName,
    digest: Digest,
    condition: Condition,
    since: datetime,
    last_used: datetime | None = None,
) -> ResidentReport:
    return ResidentReport(
        name=name,
        digest=digest,
        served_as=served_as[:256],
        condition=condition,
        since=since,
        last_used=last_used,
    )
