"""The engines that a worker can keep in step with its registry. Another one is one file and one entry here."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.worker.engines.engine import Engine, Loaded, Tally
from adaptry.worker.engines.lorax import Lorax
from adaptry.worker.engines.mistralrs import MistralRs
from adaptry.worker.engines.sglang import Sglang
from adaptry.worker.engines.speaking import Reply, Speaking
from adaptry.worker.engines.vllm import Vllm

__all__ = ["ENGINES", "Engine", "Loaded", "Reply", "Speaking", "Tally"]

ENGINES: Mapping[str, type[Engine]] = {
    "vllm": Vllm,
    "sglang": Sglang,
    "lorax": Lorax,
    "mistralrs": MistralRs,
}
