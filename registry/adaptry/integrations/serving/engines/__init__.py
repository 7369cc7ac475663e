"""The engines that a worker can keep in step with its registry. Another one is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from adaptry.integrations.serving.engines.engine import Engine, EngineAdapter, RequestCounts
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import EngineClient, EngineResponse
from adaptry.integrations.serving.engines.llamacpp import LlamaCpp
from adaptry.integrations.serving.engines.lorax import Lorax
from adaptry.integrations.serving.engines.mistralrs import MistralRs
from adaptry.integrations.serving.engines.sglang import Sglang
from adaptry.integrations.serving.engines.vllm import Vllm

__all__ = [
    "ENGINES",
    "Engine",
    "EngineAdapter",
    "EngineClient",
    "EngineResponse",
    "OperatorCommands",
    "RequestCounts",
]


class EngineFactory(Protocol):
    """Makes an engine of its address, what it needs besides, and the names this worker gave it, with their folders."""

    def __call__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> Engine: ...


def _without_commands(kind: Callable[[EngineClient], Engine]) -> EngineFactory:
    """Of an engine that needs nothing but requests."""

    def make(
        client: EngineClient, commands: OperatorCommands = NO_COMMANDS, names: Mapping[str, str] = NO_NAMES
    ) -> Engine:
        return kind(client)

    return make


ENGINES: Mapping[str, EngineFactory] = {
    "vllm": _without_commands(Vllm),
    "sglang": _without_commands(Sglang),
    "lorax": Lorax,
    "mistralrs": _without_commands(MistralRs),
    "llamacpp": LlamaCpp,
}
