"""Observes the end of requests with adapters in vLLM's front end: their status and tokens.

vLLM's own metrics name adapters only while requests are running, and have no counters for each adapter. Its
output processor, in the process where the plugin runs, ends every request, so we wrap two of its methods. If
a version of vLLM ends requests in another way, it works as before, but its requests are not counted.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Any

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.worker.adapter_traffic import CLIENT_LEFT

log = logging.getLogger("vllm.adaptry")

_STATUS = {"abort": CLIENT_LEFT, "error": 500}
_NEEDED = ("request_states", "abort_requests", "_update_stats_from_finished")


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """`lora_id` is the adapter's id in the engine. `status` is an HTTP status; 499: the client
    disconnected."""

    lora_id: int
    status: int
    tokens: Mapping[str, int]


def watch_finished(engine_client: Any, note: Callable[[FinishedRequest], None]) -> bool:
    """Calls `note` for each request with an adapter when it ends, on vLLM's event loop. Returns False if this
    vLLM ends requests in an unknown way. (Each `Any` here stands for a type of vLLM's.)"""
    processor: Any = getattr(engine_client, "output_processor", None)
    if not all(hasattr(processor, name) for name in _NEEDED):
        return False
    finish, abort = processor._update_stats_from_finished, processor.abort_requests
    is_aborting = False

    @functools.wraps(finish)
    def finish_and_note(state: Any, reason: Any, *more: Any, **kwargs: Any) -> Any:
        _note(note, state, _STATUS.get(str(reason), 200))
        return finish(state, reason, *more, **kwargs)

    @functools.wraps(abort)
    def abort_and_note(*args: Any, **kwargs: Any) -> Any:
        nonlocal is_aborting
        if is_aborting:  # vLLM calls it recursively for the parts of a request
            return abort(*args, **kwargs)
        before, is_aborting = dict(processor.request_states), True
        try:
            return abort(*args, **kwargs)
        finally:
            is_aborting = False
            for key in before.keys() - processor.request_states.keys():
                _note(note, before[key], CLIENT_LEFT)

    processor._update_stats_from_finished = finish_and_note
    processor.abort_requests = abort_and_note
    return True


def _note(note: Callable[[FinishedRequest], None], state: Any, status: int) -> None:
    lora = getattr(state, "lora_request", None)
    if lora is None:
        return
    try:
        note(FinishedRequest(lora.lora_int_id, status, _tokens(state)))
    except Exception:  # an error here would end vLLM's loop of answers
        log.exception("a request could not be counted")


def _tokens(state: Any) -> dict[str, int]:
    """Without vLLM's statistics (`--disable-log-stats`), tokens are not counted."""
    completion = getattr(getattr(state, "stats", None), "num_generation_tokens", None)
    found = {"prompt_tokens": getattr(state, "prompt_len", None), "completion_tokens": completion}
    return {kind: count for kind, count in found.items() if isinstance(count, int)}
