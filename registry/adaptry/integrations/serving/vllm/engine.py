"""Access to a resolver's vLLM: the API server's table of loaded adapters, its engine and limits.

vLLM never resolves a loaded name again, and gives resolvers no way to unload one. So we find the object that
called the resolver, once, and use attributes it has had since resolvers exist: the table of names, the
counter of ids, and the engine client. A missing attribute raises an error when it is first needed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from adaptry.checks.runtimes import Runtime
from adaptry.checks.runtimes.runtime import parse_version
from adaptry.core.errors import CheckFailed, Unsupported

_VERSION = re.compile(r"\d+(?:\.\d+){0,2}")
_NEEDED = ("lora_requests", "lora_id_counter", "lora_resolver_lock", "engine_client", "model_config")


@dataclass(frozen=True, slots=True)
class InProcessVllm:
    """`models` is vLLM's `OpenAIServingModels`. (`Any`: vLLM's own types, wherever `Any` is said here.)"""

    models: Any

    @classmethod
    def current(cls) -> InProcessVllm:
        """The one that awaits the coroutine that calls this. Raises `Unsupported` if it is unfamiliar."""
        awaiting = sys._getframe(2)  # 1 is the coroutine that calls this; while it runs, 2 is who awaits it
        return cls.of(awaiting.f_locals.get("self"))

    @classmethod
    def of(cls, models: Any) -> InProcessVllm:
        """Raises `Unsupported` if `models` is unfamiliar."""
        missing = [name for name in _NEEDED if not hasattr(models, name)]
        if missing:
            raise Unsupported(
                f"this version of vLLM keeps its adapters another way (no {', '.join(missing)} where its"
                " resolvers are asked): a moved alias would not be noticed, so nothing is served. Serve by"
                " `adaptry follow` instead"
            )
        return cls(models)

    @property
    def loaded(self) -> MutableMapping[str, Any]:
        """By the name that clients ask for, what it was loaded as."""
        found: MutableMapping[str, Any] = self.models.lora_requests
        return found

    @property
    def model(self) -> str:
        return str(self.models.model_config.model)

    @property
    def served_name(self) -> str:
        """What clients call the base."""
        paths = getattr(self.models, "base_model_paths", None)
        return str(paths[0].name) if paths else self.model

    @property
    def revision(self) -> str | None:
        revision = getattr(self.models.model_config, "revision", None)
        return revision if isinstance(revision, str) else None

    def runtime(self, version: str) -> Runtime:
        """What runs, with the limits that it was started with."""
        config = getattr(getattr(self.models.engine_client, "vllm_config", None), "lora_config", None)
        options = {
            name: str(value)
            for name in ("max_lora_rank", "max_loras", "max_cpu_loras")
            if isinstance(value := getattr(config, name, None), int)
        }
        targets = getattr(config, "target_modules", None)
        if targets:
            options["lora_target_modules"] = "+".join(sorted(targets))
        numbers = _VERSION.match(version)
        return Runtime("vllm", parse_version(numbers[0]) if numbers else None, options)

    @property
    def slots(self) -> int | None:
        """How many adapters can be in one batch (`--max-loras`); None if this version does not show it."""
        config = getattr(getattr(self.models.engine_client, "vllm_config", None), "lora_config", None)
        slots = getattr(config, "max_loras", None)
        return slots if isinstance(slots, int) else None

    def is_resolving(self, name: str) -> bool:
        """Whether a request waits for it to be loaded."""
        return bool(self.models.lora_resolver_lock[name].locked())

    def new_id(self) -> int:
        return int(self.models.lora_id_counter.inc(1))

    async def load(self, request: Any) -> None:
        """Into the engine; under no name yet. Raises `CheckFailed` with what the engine says."""
        try:
            await self.models.engine_client.add_lora(request)
        except Exception as error:
            raise CheckFailed(f"vLLM does not load it: {error}") from error

    async def unload(self, number: int) -> None:
        """Out of the engine. No request may be under way with it."""
        await self.models.engine_client.remove_lora(number)

    async def find_refusal(self, name: str) -> BaseException | None:
        """Asks vLLM for a name as a request would: what it is refused with; None if it is answered, or is
        just not there."""
        try:
            await self.models.resolve_lora(name)
        except Exception as error:  # noqa: BLE001  whatever a request is refused with is the answer
            return error.__cause__ or error
        return None

    def names_in_use(self) -> frozenset[str]:
        """The names, as they were loaded, that requests are under way with."""
        return frozenset(request.lora_name for request in self._requests_in_use())

    def ids_in_use(self) -> frozenset[int]:
        """The numbers of what requests are under way with."""
        return frozenset(request.lora_int_id for request in self._requests_in_use())

    def _requests_in_use(self) -> list[Any]:
        processor = getattr(self.models.engine_client, "output_processor", None)
        states = getattr(processor, "request_states", {})
        requests = (getattr(state, "lora_request", None) for state in states.values())
        return [request for request in requests if request is not None]
