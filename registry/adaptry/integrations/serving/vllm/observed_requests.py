"""Observes requests with adapters in vLLM's front end: when each begins, and with which status it ends.

vLLM's own metrics name adapters only while requests are running, and have no counters for each adapter. Its
output processor, in the process where the plugin runs, begins and ends every request, so we wrap three of its
methods. If a version of vLLM does this in another way, it still works, but its requests are not observed.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.worker.adapter_traffic import CLIENT_LEFT

Notice = TypeVar("Notice")

log = logging.getLogger("vllm.adaptry")

_STATUS = {"abort": CLIENT_LEFT, "error": 500}
_NEEDED = ("request_states", "add_request", "abort_requests", "_update_stats_from_finished")


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """`lora_id` is the adapter's id in the engine. `status` is an HTTP status; 499: the client
    disconnected."""

    lora_id: int
    status: int
    tokens: Mapping[str, int]


class RequestObserver(Protocol):
    """Something that is notified of requests, on vLLM's event loop."""

    def note_started(self, lora_id: int) -> None:
        """Notifies that a request for the adapter with this id will be sent to the engine."""

    def note_finished(self, request: FinishedRequest) -> None:
        """Notifies that a request for an adapter has ended."""


def observe_requests(engine_client: Any, observers: Sequence[RequestObserver]) -> None:
    """Notifies the observers of each request with an adapter from now on. If this vLLM begins or ends
    requests in an unknown way, this is only logged. (Each `Any` here stands for a type of vLLM's.)"""
    processor: Any = getattr(engine_client, "output_processor", None)
    if not all(hasattr(processor, name) for name in _NEEDED):
        log.warning("requests are not counted, because this version of vLLM ends them differently")
        return
    add, finish = processor.add_request, processor._update_stats_from_finished
    abort = processor.abort_requests
    is_aborting = False

    def note(state: Any, status: int) -> None:
        if (lora := getattr(state, "lora_request", None)) is not None:
            ended = FinishedRequest(lora.lora_int_id, status, _tokens(state))
            for one in observers:
                _notify(one.note_finished, ended)

    @functools.wraps(add)
    def note_and_add(request: Any, *more: Any, **kwargs: Any) -> Any:
        if (lora := getattr(request, "lora_request", None)) is not None:
            for one in observers:
                _notify(one.note_started, lora.lora_int_id)
        return add(request, *more, **kwargs)

    @functools.wraps(finish)
    def finish_and_note(state: Any, reason: Any, *more: Any, **kwargs: Any) -> Any:
        note(state, _STATUS.get(str(reason), 200))
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
                note(before[key], CLIENT_LEFT)

    processor.add_request = note_and_add
    processor._update_stats_from_finished = finish_and_note
    processor.abort_requests = abort_and_note


def _notify(notify: Callable[[Notice], None], notice: Notice) -> None:
    try:
        notify(notice)
    except Exception:  # an error here would end vLLM's loop of answers
        log.exception("a request could not be counted")


def _tokens(state: Any) -> dict[str, int]:
    """The request's tokens. Without vLLM's statistics (`--disable-log-stats`), tokens are not counted."""
    completion = getattr(getattr(state, "stats", None), "num_generation_tokens", None)
    found = {"prompt_tokens": getattr(state, "prompt_len", None), "completion_tokens": completion}
    return {kind: count for kind, count in found.items() if isinstance(count, int)}
