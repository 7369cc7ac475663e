"""Our resolver as vLLM has them: where our errors become answers that a caller can read.

vLLM's own way to say that a resolver will not is "does not exist", or "found but could not be loaded"; what a resolver
raises goes to the caller instead, with its sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import vllm
from vllm import exceptions
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from adaptry.core.errors import AdaptryError, Conflict, PermissionDenied, Unauthenticated, Unavailable
from adaptry.core.settings import AdaptrySettings
from adaptry.integrations.serving.settings import WorkerSettings, open_worker_cache, open_worker_registry
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.resolver import AdapterResolver, ResolverConfig

_NAME = "adaptry"
_STATUS: Mapping[type[AdaptryError], HTTPStatus] = {
    PermissionDenied: HTTPStatus.FORBIDDEN,
    Conflict: HTTPStatus.CONFLICT,
    Unauthenticated: HTTPStatus.SERVICE_UNAVAILABLE,  # the worker's token, not the caller's
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class LoraResolverPlugin(LoRAResolver):  # type: ignore[misc]  # vLLM is not there when types are checked
    """Resolves refs by a registry."""

    def __init__(self, resolver: AdapterResolver) -> None:
        self._resolver = resolver

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:
        """A `LoRARequest`, or None for what is not ours. (`Any`: vLLM's own.)"""
        try:
            return await self._resolver.resolve(InProcessVllm.current(), lora_name)
        except AdaptryError as error:
            raise _vllm_error(error) from error


def register_resolver() -> None:
    """Again is no error. Raises `Invalid` for settings that make no sense."""
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
        refresh_interval=own.watch_seconds,
    )
    LoRAResolverRegistry.register_resolver(_NAME, LoraResolverPlugin(AdapterResolver(config)))


def _vllm_error(error: AdaptryError) -> Exception:
    """What vLLM answers with a status and the sentence; versions without such an error answer 400."""
    graceful = getattr(exceptions, "GracefulHTTPError", None)
    if graceful is None:
        return ValueError(error.message)
    status = next(
        (found for kind, found in _STATUS.items() if isinstance(error, kind)), HTTPStatus.BAD_REQUEST
    )
    answer: Exception = graceful(error.message, status)
    return answer
