"""Our resolver as a plugin of vLLM, which turns our errors into answers with a status and a sentence.

If a resolver returns nothing, vLLM answers "does not exist" or "found but could not be loaded". An exception
of a resolver reaches the caller instead, with its message.
"""

from __future__ import annotations

import functools
import logging
import sys
import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import vllm
from vllm import exceptions
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from adaptry.core.errors import (
    AdaptryError,
    Conflict,
    PermissionDenied,
    RevisionNotFound,
    Unauthenticated,
    Unavailable,
)
from adaptry.core.settings import AdaptrySettings
from adaptry.integrations.serving.settings import WorkerSettings, open_worker_cache, open_worker_registry
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.metrics import register_metrics
from adaptry.integrations.serving.vllm.resolver import AdapterResolver
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig

log = logging.getLogger("vllm.adaptry")

_NAME = "adaptry"
_STATUS: Mapping[type[AdaptryError], HTTPStatus] = {
    PermissionDenied: HTTPStatus.FORBIDDEN,
    RevisionNotFound: HTTPStatus.NOT_FOUND,
    Conflict: HTTPStatus.CONFLICT,
    Unauthenticated: HTTPStatus.SERVICE_UNAVAILABLE,  # the worker's token, not the caller's
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class LoraResolverPlugin(LoRAResolver):  # type: ignore[misc]  # vLLM is not there when types are checked
    """Resolves refs by a registry."""

    def __init__(self, resolver: AdapterResolver) -> None:
        self._resolver = resolver

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """A `LoRARequest`, or None for names that are not ours. (`Any`: vLLM's own.)"""
        try:
            return await self._resolver.resolve(InProcessVllm.current(), lora_name)
        except AdaptryError as error:
            raise _vllm_error(error) from error


def register_resolver() -> None:
    """Registers the resolver. Idempotent. Raises `Invalid` for invalid settings."""
    if _NAME in LoRAResolverRegistry.get_supported_resolvers():
        return
    settings = AdaptrySettings.from_env()
    own = WorkerSettings.from_env()
    config = ResolverConfig(
        registry=open_worker_registry(settings),
        cache=open_worker_cache(settings),
        make_request=lambda name, number, path: LoRARequest(
            lora_name=name, lora_int_id=number, lora_path=path
        ),
        version=vllm.__version__,
        base=own.base,
        started_at=time.time(),  # vLLM loads plugins before it reads its base
        known_as=f"{settings.registry}\n{settings.token}",
        worker_name=own.name,
        max_age=own.max_age,
        preload=own.preload,
        pin=own.pin,
        refresh_interval=own.watch_seconds,
    )
    resolver = AdapterResolver(config)
    LoRAResolverRegistry.register_resolver(_NAME, LoraResolverPlugin(resolver))
    _start_with_server(resolver)


def _start_with_server(resolver: AdapterResolver) -> None:
    """Makes the resolver report from the start of vLLM's API server on. If this version of vLLM starts in
    another way, it reports from the first request for an adapter on; before that, nothing is loaded. vLLM
    does not start if it has too few slots for the pinned names."""
    serving = sys.modules.get("vllm.entrypoints.openai.models.serving")
    kind = getattr(serving, "OpenAIServingModels", None)
    start = getattr(kind, "init_static_loras", None)
    if kind is None or start is None:
        return

    @functools.wraps(start)
    async def start_both(models: Any) -> None:
        await start(models)
        if _NAME in LoRAResolverRegistry.get_supported_resolvers():
            vllm = InProcessVllm.of(models)
            resolver.require_slots(vllm)
            register_metrics(resolver, vllm.served_name)
            try:
                resolver.start(vllm)
            except AdaptryError as error:  # each request for an adapter tries again
                log.warning("adapters are not served yet: %s", error.message)

    kind.init_static_loras = start_both


def _vllm_error(error: AdaptryError) -> Exception:
    """The exception that makes vLLM answer with a status and the message. Versions of vLLM without this
    exception answer 400."""
    graceful = getattr(exceptions, "GracefulHTTPError", None)
    if graceful is None:
        return ValueError(error.message)
    status = next(
        (found for kind, found in _STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST
    )
    answer: Exception = graceful(error.message, status)
    return answer
