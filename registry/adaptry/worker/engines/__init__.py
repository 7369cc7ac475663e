"""The engines that a worker can keep in step with its registry. Another one is one file and one entry here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from adaptry.worker.engines.engine import Engine, Loaded, Tally
from adaptry.worker.engines.llamacpp import LlamaCpp
from adaptry.worker.engines.lorax import Lorax
from adaptry.worker.engines.mistralrs import MistralRs
from adaptry.worker.engines.outside import NO_NAMES, NOTHING, Outside
from adaptry.worker.engines.sglang import Sglang
from adaptry.worker.engines.speaking import Reply, Speaking
from adaptry.worker.engines.vllm import Vllm

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
