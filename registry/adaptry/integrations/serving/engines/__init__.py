"""The engines that a worker can control. To add one, add a file and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from adaptry.integrations.serving.engines.dynamo import Dynamo
from adaptry.integrations.serving.engines.engine import AdapterUsage, Engine, EngineAdapter, RequestCounts
from adaptry.integrations.serving.engines.hooks import NO_COMMANDS, NO_NAMES, OperatorCommands
from adaptry.integrations.serving.engines.http import (
    EngineClient,
    EngineDisconnect,
    EngineResponse,
    EngineTimeout,
)
from adaptry.integrations.serving.engines.llamacpp import LlamaCpp
from adaptry.integrations.serving.engines.lorax import Lorax
from adaptry.integrations.serving.engines.mistralrs import MistralRs
from adaptry.integrations.serving.engines.sglang import Sglang
from adaptry.integrations.serving.engines.vllm import Vllm

__all__ = [
    "ENGINES",
    "AdapterUsage",
    "Engine",
    "EngineAdapter",
    "EngineClient",
    "EngineDisconnect",
    "EngineResponse",
    "EngineTimeout",
    "OperatorCommands",
    "RequestCounts",
]


class EngineFactory(Protocol):
    """Makes an engine from its client, the operator's commands, and the loaded names with their folders."""

    def __call__(
        self,
        client: EngineClient,
        commands: OperatorCommands = NO_COMMANDS,
        names: Mapping[str, str] = NO_NAMES,
    ) -> Engine: ...


def _without_commands(kind: Callable[[EngineClient], Engine]) -> EngineFactory:
    """The factory of an engine that needs no commands."""

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
    "dynamo": Dynamo,
}
