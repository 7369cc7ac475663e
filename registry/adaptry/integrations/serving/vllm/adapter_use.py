"""Counts the answers from each version in this vLLM, and records when each was last used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.integrations.serving.vllm.draining_adapters import ResolvedAdapter
from adaptry.integrations.serving.vllm.observed_requests import FinishedRequest
from adaptry.integrations.serving.worker.adapter_traffic import AdapterTraffic
from adaptry.integrations.serving.worker.loaded_version import LoadedVersion


class AdapterUse:
    """Counts finished requests by version, under whichever names a version is loaded; each part of a stack
    counts. `loaded` returns the adapters that are loaded or draining."""

    def __init__(
        self,
        loaded: Callable[[], Iterable[ResolvedAdapter]],
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self._loaded, self._clock, self._now = loaded, clock, now
        self._traffic = AdapterTraffic()

    def note_started(self, lora_id: int) -> None:
        """Does nothing: a request is counted at its end."""

    def note_finished(self, request: FinishedRequest) -> None:
        """Counts a request that has ended."""
        for one in self._loaded():
            if one.lora_id == request.lora_id:
                self._note_use(one)
                for part in one.parts:
                    key = _key(part.version.name, part.digest)
                    self._traffic.record(key, request.status, request.tokens)

    def note_in_use(self, lora_ids: frozenset[int]) -> None:
        """Records that the adapters with these ids have running requests."""
        for one in self._loaded():
            if one.lora_id in lora_ids:
                self._note_use(one)

    def versions(self) -> tuple[LoadedVersion, ...]:
        """Each version that is loaded or draining, once."""
        last_used: dict[tuple[AdapterName, int, Digest], float | None] = {}
        for one in self._loaded():
            at = one.last_used.timestamp() if one.last_used else None
            for part in one.parts:
                key = (part.version.name, part.version.number, part.digest)
                times = (last_used.get(key), at)
                last_used[key] = max((time for time in times if time is not None), default=None)
        usage = self._traffic.usage()
        return tuple(
            LoadedVersion(str(name), number, digest, at, usage.get(_key(name, digest)))
            for (name, number, digest), at in last_used.items()
        )

    def _note_use(self, one: ResolvedAdapter) -> None:
        one.used_at, one.last_used = self._clock(), self._now()


def _key(name: AdapterName, digest: Digest) -> str:
    return f"{name}@{digest}"
