"""The parts of vLLM that a resolver sees, as in vLLM 0.32 (entrypoints/openai/models/serving.py,
v1/engine/async_llm.py): the loaded names, the adapters that the engine holds, and the running requests.
`tests/vllm` uses the real vLLM.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from adaptry.integrations.serving.vllm.engine import InProcessVllm


@dataclass(slots=True)
class LoRARequest:
    """The fields that matter. Mutable like vLLM's class, since vLLM writes the adapter's number into it."""

    lora_name: str
    lora_int_id: int
    lora_path: str


class OutputProcessor:
    """Where requests begin and end (v1/engine/output_processor.py)."""

    def __init__(self) -> None:
        self.request_states: dict[Any, Any] = {}

    def add_request(self, request: Any, prompt: str | None, parent: Any, index: int, queue: Any) -> None:
        """The engine gets the request after this."""
        self.request_states[request.request_id] = request

    def abort_requests(self, request_ids: list[Any], internal: bool) -> None:
        for one in request_ids:
            self.request_states.pop(one)

    def finish(self, key: object, reason: str) -> None:
        """Ends a request like `process_outputs`, after three tokens of which two are new."""
        self._update_stats_from_finished(self.request_states.pop(key), reason, None)

    def _update_stats_from_finished(self, req_state: Any, finish_reason: Any, iteration_stats: Any) -> None:
        pass


@dataclass(slots=True)
class EngineClient:
    """An engine that holds what it was given. Beyond `max_cpu_loras` it evicts the least recently used one
    (lora/worker_manager.py). `refuses` are words in the paths of adapters that it refuses."""

    limits: dict[str, Any]
    held: dict[int, str] = field(default_factory=dict)
    refuses: str | None = None
    output_processor: OutputProcessor = field(default_factory=OutputProcessor)
    errored: bool = False

    @property
    def vllm_config(self) -> Any:
        return SimpleNamespace(lora_config=SimpleNamespace(**self.limits) if self.limits else None)

    async def add_lora(self, request: LoRARequest) -> bool:
        assert (Path(request.lora_path) / "adapter_config.json").is_file()
        if self.refuses and self.refuses in request.lora_path:
            raise RuntimeError("LoRA rank 32 is greater than max_lora_rank 16.")
        self.held.pop(request.lora_int_id, None)
        self.held[request.lora_int_id] = request.lora_path
        while len(self.held) > self.limits.get("max_cpu_loras", len(self.held)):
            del self.held[next(iter(self.held))]
        return True

    async def remove_lora(self, number: int) -> bool:
        return self.held.pop(number, None) is not None


class Counter:
    """vLLM's `AtomicCounter`."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def inc(self, by: int) -> int:
        return next(self._numbers)


class Models:
    """vLLM's `OpenAIServingModels`, with one resolver."""

    def __init__(self, model: Path, resolve: Callable[[str], Coroutine[Any, Any, Any]]) -> None:
        self.lora_requests: dict[str, LoRARequest] = {}
        self.lora_id_counter = Counter()
        self.lora_resolver_lock: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.engine_client = EngineClient({"max_lora_rank": 16, "max_loras": 2, "target_modules": None})
        self.model_config = SimpleNamespace(model=str(model), revision=None)
        self._resolve = resolve

    async def resolve_lora(self, name: str) -> LoRARequest | None:
        """None is vLLM's 404. A resolver's errors are passed to the caller."""
        async with self.lora_resolver_lock[name]:
            if name in self.lora_requests:
                return self.lora_requests[name]
            number = self.lora_id_counter.inc(1)
            request: LoRARequest | None = await self._resolve(name)
            if request is None:
                return None
            request.lora_int_id = number
            await self.engine_client.add_lora(request)
            self.lora_requests[name] = request
            return request

    def begin(self, name: str) -> Callable[..., None]:
        """Begins a request with the version that `name` now selects; call the returned function when it ends
        or is aborted.
        """
        processor, key = self.engine_client.output_processor, object()
        request = SimpleNamespace(
            request_id=key,
            lora_request=self.lora_requests[name],
            prompt_len=3,
            stats=SimpleNamespace(num_generation_tokens=2),
        )
        processor.add_request(request, None, None, 0, None)

        def end(reason: str = "stop") -> None:
            if reason == "abort":
                processor.abort_requests([key], internal=True)
            else:
                processor.finish(key, reason)

        return end


async def seen(resolve: Callable[[InProcessVllm, str], Coroutine[Any, Any, Any]], name: str) -> Any:
    """Calls our resolver as vLLM does; the resolver finds its caller itself."""
    return await resolve(InProcessVllm.current(), name)
