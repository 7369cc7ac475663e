"""Pinned adapters in a real vLLM with two slots, verified by vLLM's log of loads and evictions."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs

pytestmark = vllm_server.PYTHON.marks

_STEP = re.compile(r"(Adding lora\. Model id|Removing adapter int id): (\d+)")
_TIMEOUT = 60.0


def residents(log: Path) -> set[int]:
    """The ids of the adapters in the engine's memory."""
    found: set[int] = set()
    for step, number in _STEP.findall(log.read_text()):
        if step.startswith("Adding"):
            found.add(int(number))
        else:
            found.discard(int(number))
    return found


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + _TIMEOUT
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_pinned_adapter_is_loaded_at_the_start_and_returns_to_the_engine(
    place: Place, env: dict[str, str], tmp_path: Path
) -> None:
    pinned = place.publish("acme/pinned", seed=35)
    others = [place.publish(f"acme/passing-{seed}", seed=seed) for seed in (36, 37, 38)]
    log = tmp_path / "vllm.log"
    theirs = {**env, "ADAPTRY_PIN": "acme/pinned", "VLLM_LOGGING_LEVEL": "DEBUG"}
    with vllm_server.serving(vllm_server.PYTHON.python, place.base, theirs, log) as vllm:
        wait_for(lambda: len(residents(log)) == 1)
        (first,) = residents(log)
        for _ in range(2):
            for other in others:  # more than fit at once
                found = logprobs(vllm.complete(str(other.name), models.PROMPT))
                assert found == close_to(place.trained(other))
            wait_for(lambda: first in residents(log) and len(residents(log)) == 2)
        assert logprobs(vllm.complete("acme/pinned", models.PROMPT)) == close_to(place.trained(pinned))
