"""Identifies the engine at an address: its version, limits and model, as far as it reports them.

It queries four paths, each known to one engine; it sends only `GET`, and follows no redirects. Values that a
server does not report (such as vLLM's `max_lora_rank`) stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from adaptry.checks.runtimes.runtime import Runtime, Version, parse_version
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, NotFound, Unavailable
from adaptry.core.http import check_url, is_cut_in_head, open_pool, plain_reason
from adaptry.core.lazy_dataclass import dataclass

_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=16, nodes=100_000)
_SECONDS = urllib3.Timeout(connect=5, read=10)
_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){0,2})")
_UNAVAILABLE_STATUSES = (502, 503, 504)
"""The status that a proxy returns for an unreachable server, and a server that is still starting."""
_SLOTS = re.compile(r'^vllm:lora_requests_info\{[^}]*max_lora="(\d{1,6})"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """A server's own description. `models`: names and places of its models; `adapters`: the loaded ones;
    `started_at`: when it started (Unix time), if that is known; `base_id`: the base that it has been found to
    serve since then; `folder`: its working directory, if it is known and on this machine."""

    runtime: Runtime
    models: tuple[str, ...]
    adapters: tuple[str, ...] = ()
    started_at: float | None = None
    base_id: Digest | None = None
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class _Server:
    url: str
    pool: urllib3.PoolManager
    headers: Mapping[str, str]

    def text(self, path: str) -> str | None:
        """The response to `GET path`; None if it is not a success. Raises `Unavailable` (unreachable
        server).
        """
        try:
            answer = self.pool.request(
                "GET",
                f"{self.url}{path}",
                headers=self.headers,
                timeout=_SECONDS,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            try:
                data = answer.read(_LIMITS.size + 1) if answer.status == 200 else b""
            finally:
                answer.close()  # unread bytes would be read as the start of the next response
                answer.release_conn()
        except (HTTPError, OSError) as error:
            raise Unavailable(f"nothing answers at {self.url} ({plain_reason(error)})") from error
        if answer.status in _UNAVAILABLE_STATUSES or is_cut_in_head(answer):
            reason = (
                f"status {answer.status}"
                if answer.status in _UNAVAILABLE_STATUSES
                else "the connection broke"
            )
            raise Unavailable(f"nothing answers at {self.url} ({reason})")
        return data.decode("utf-8", "replace") if 0 < len(data) <= _LIMITS.size else None

    def json(self, path: str) -> Mapping[str, Any]:
        """The JSON object that `GET path` returns, else an empty one. (`Any`: JSON.)"""
        text = self.text(path)
        try:
            found = strictjson.loads(text.encode(), _LIMITS, path) if text else {}
        except Invalid:
            return {}
        return found if isinstance(found, dict) else {}


def probe_engine(url: str, ca_bundle: str | None = None, key: str | None = None) -> EngineInfo:
    """Identifies the engine at `url`; `key` is its API key, if it has one.

    Raises `Invalid` (malformed address), `Unavailable` (unreachable server), `NotFound` (unknown engine).
    """
    address = check_url(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    server = _Server(address, open_pool(address, ca_bundle, None), headers)
    for look in _PROBES:
        if found := look(server):
            return found
    raise NotFound(
        f"unknown engine at {address}: vLLM, SGLang, llama.cpp and mistral.rs are recognised;"
        " for others, name the engine: --runtime ENGINE --base NAME"
    )


def _sglang(server: _Server) -> EngineInfo | None:
    info = server.json("/get_server_info") or server.json("/server_info")
    if "max_loras_per_batch" not in info:
        return None
    options = {
        name: str(info[name])
        for name in ("max_lora_rank", "max_loras_per_batch")
        if _is_number(info.get(name))
    }
    if info.get("lora_strict_loading") is True:
        options["lora_strict_loading"] = "true"
    targets = info.get("lora_target_modules")
    if isinstance(targets, list) and targets and "all" not in targets and all(map(_is_name, targets)):
        options["lora_target_modules"] = "+".join(sorted(targets))
    models = _texts(info.get("served_model_name"), info.get("model_path"))
    return EngineInfo(Runtime("sglang", _version(info.get("version")), options), models)


def _llamacpp(server: _Server) -> EngineInfo | None:
    info = server.json("/props")
    if "default_generation_settings" not in info:
        return None
    return EngineInfo(Runtime("llama.cpp"), _texts(info.get("model_alias"), info.get("model_path")))


def _mistralrs(server: _Server) -> EngineInfo | None:
    info = server.json("/v1/lora_adapters")
    if not _is_number(info.get("max_rank")):
        return None
    options = {"lora_max_rank": str(info["max_rank"])}
    if _is_number(info.get("max_adapters")):
        options["lora_max_adapters"] = str(info["max_adapters"])
    bases, adapters = _models(server)
    return EngineInfo(Runtime("mistral.rs", None, options), bases, adapters)


def _vllm(server: _Server) -> EngineInfo | None:
    version = _version(server.json("/version").get("version"))
    if version is None:
        return None
    slots = _SLOTS.search(server.text("/metrics") or "")
    bases, adapters = _models(server)
    options = {"max_loras": slots[1]} if slots and int(slots[1]) else {}
    return EngineInfo(Runtime("vllm", version, options), bases, adapters)


_PROBES: tuple[Callable[[_Server], EngineInfo | None], ...] = (_sglang, _llamacpp, _mistralrs, _vllm)


def _models(server: _Server) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bases and adapters of an OpenAI listing: an adapter has its base as `parent`."""
    listed = server.json("/v1/models").get("data")
    models = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    bases = [one for one in models if not one.get("parent")]
    names = _texts(*(one.get(key) for one in bases for key in ("root", "id")))
    return names, _texts(*(one.get("id") for one in models if one.get("parent")))


def _version(value: object) -> Version | None:
    match = _VERSION.match(value) if isinstance(value, str) else None
    return parse_version(match[1]) if match else None


def _texts(*values: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in values if isinstance(value, str) and value))


def _is_number(value: object) -> bool:
    return type(value) is int and value > 0


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_]{1,64}", value) is not None
