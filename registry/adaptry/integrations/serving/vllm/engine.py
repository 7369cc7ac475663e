"""Access to a resolver's vLLM: the API server's table of loaded adapters, its engine and limits.

vLLM never resolves a loaded name again, and gives resolvers no way to unload one. So we find the object that
called the resolver, and use attributes that it has had since resolvers were introduced: the table of names,
the counter of ids, and the engine client. If an attribute is missing, an error is raised at the start.
"""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import Any

from adaptry.checks.runtimes import Runtime
from adaptry.checks.runtimes.runtime import parse_version
from adaptry.checks.runtimes.vllm_towers import TOWERS
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")
_NEEDED = ("lora_requests", "lora_id_counter", "lora_resolver_lock", "engine_client", "model_config")


@dataclass(frozen=True, slots=True)
class InProcessVllm:
    """`models` is vLLM's `OpenAIServingModels`. (Each `Any` here stands for a type of vLLM's.)"""

    models: Any

    @classmethod
    def current(cls) -> InProcessVllm:
        """The vLLM that awaits the calling coroutine. Raises `Unsupported` for an unknown version."""
        awaiting = sys._getframe(2)  # frame 1 is the coroutine that calls this; frame 2 is its awaiter
        return cls.of(awaiting.f_locals.get("self"))

    @classmethod
    def of(cls, models: Any) -> InProcessVllm:
        """Access to a vLLM. Raises `Unsupported` if `models` lacks attributes that we need."""
        missing = [name for name in _NEEDED if not hasattr(models, name)]
        if missing:
            raise Unsupported(
                f"this version of vLLM manages its adapters differently (no {', '.join(missing)} where its"
                " resolvers are called): a moved alias would not be noticed, so nothing is served. Use"
                " `adaptry follow` instead"
            )
        return cls(models)

    @property
    def loaded(self) -> MutableMapping[str, Any]:
        """The `LoRARequest` of each loaded name, by the name that clients request."""
        found: MutableMapping[str, Any] = self.models.lora_requests
        return found

    @property
    def model(self) -> str:
        return str(self.models.model_config.model)

    @property
    def served_name(self) -> str:
        """The base's name in requests."""
        paths = getattr(self.models, "base_model_paths", None)
        return str(paths[0].name) if paths else self.model

    @property
    def revision(self) -> str | None:
        revision = getattr(self.models.model_config, "revision", None)
        return revision if isinstance(revision, str) else None

    def require_adapters(self) -> None:
        """Raises `CheckFailed` if vLLM was started without adapters."""
        config = getattr(self.models.engine_client, "vllm_config", None)
        if config is not None and getattr(config, "lora_config", config) is None:
            raise CheckFailed("this vLLM was started without --enable-lora, so it loads no adapters")

    def runtime(self, version: str) -> Runtime:
        """The running engine, with the limits that it was started with."""
        config = getattr(getattr(self.models.engine_client, "vllm_config", None), "lora_config", None)
        options = {
            name: str(value)
            for name in ("max_lora_rank", "max_loras", "max_cpu_loras")
            if isinstance(value := getattr(config, name, None), int)
        }
        targets = getattr(config, "target_modules", None)
        if targets:
            options["lora_target_modules"] = "+".join(sorted(targets))
        if getattr(config, TOWERS, None) is True:
            options[TOWERS] = "true"
        numbers = _VERSION.match(version)
        return Runtime("vllm", parse_version(numbers[0]) if numbers else None, options)

    @property
    def slots(self) -> int | None:
        """The number of adapters that can be in one batch (`--max-loras`); None if this version does not show
        it.
        """
        config = getattr(getattr(self.models.engine_client, "vllm_config", None), "lora_config", None)
        slots = getattr(config, "max_loras", None)
        return slots if isinstance(slots, int) else None

    @property
    def is_dead(self) -> bool:
        """Whether the engine has ended; this process ends soon."""
        return bool(getattr(self.models.engine_client, "errored", False))

    def is_resolving(self, name: str) -> bool:
        """Whether a request waits until `name` is loaded."""
        return bool(self.models.lora_resolver_lock[name].locked())

    def new_id(self) -> int:
        return int(self.models.lora_id_counter.inc(1))

    async def load(self, request: Any) -> None:
        """Loads an adapter into the engine, without a name for clients. Raises `CheckFailed` with the
        engine's message."""
        try:
            await self.models.engine_client.add_lora(request)
        except Exception as error:
            raise CheckFailed(f"vLLM refuses to load it: {error}") from error

    async def unload(self, number: int) -> None:
        """Unloads an adapter from the engine. No running request may use it."""
        await self.models.engine_client.remove_lora(number)

    async def find_refusal(self, name: str) -> BaseException | None:
        """Resolves a name as a request would. Returns the error with which to refuse it; None if it is
        resolved or simply unknown.
        """
        try:
            await self.models.resolve_lora(name)
        except Exception as error:  # noqa: BLE001  any refusal is the response to the request
            return error.__cause__ or error
        return None

    def names_in_use(self) -> frozenset[str]:
        """The names of loaded adapters that running requests use."""
        return frozenset(request.lora_name for request in self._requests_in_use())

    def ids_in_use(self) -> frozenset[int]:
        """The ids of adapters that running requests use."""
        return frozenset(request.lora_int_id for request in self._requests_in_use())

    def _requests_in_use(self) -> list[Any]:
        processor = getattr(self.models.engine_client, "output_processor", None)
        states = getattr(processor, "request_states", {})
        requests = (getattr(state, "lora_request", None) for state in states.values())
        return [request for request in requests if request is not None]
