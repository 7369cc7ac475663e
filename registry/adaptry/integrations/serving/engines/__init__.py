"""The engines that a worker can keep in step with its registry. Another one is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from adaptry.integrations.serving.engines.engine import Engine, Loaded, Tally
from adaptry.integrations.serving.engines.hooks import NO_NAMES, NOTHING, Outside
from adaptry.integrations.serving.engines.http import Reply, Speaking
from adaptry.integrations.serving.engines.llamacpp import LlamaCpp
from adaptry.integrations.serving.engines.lorax import Lorax
from adaptry.integrations.serving.engines.mistralrs import MistralRs
from adaptry.integrations.serving.engines.sglang import Sglang
from adaptry.integrations.serving.engines.vllm import Vllm

__all__ = ["ENGINES", "Engine", "Loaded", "Outside", "Reply", "Speaking", "Tally"]


class Make(Protocol):
    """Makes an engine of its address, what it needs besides, and the names this worker gave it, with their folders."""

    def __call__(
        self, speaking: Speaking, outside: Outside = NOTHING, names: Mapping[str, str] = NO_NAMES
    ) -> Engine: ...


def _alone(kind: Callable[[Speaking], Engine]) -> Make:
    """Of an engine that needs nothing but requests."""

    def make(speaking: Speaking, outside: Outside = NOTHING, names: Mapping[str, str] = NO_NAMES) -> Engine:
        return kind(speaking)

    return make


ENGINES: Mapping[str, Make] = {
    "vllm": _alone(Vllm),
    "sglang": _alone(Sglang),
    "lorax": Lorax,
    "mistralrs": _alone(MistralRs),
    "llamacpp": LlamaCpp,
}
