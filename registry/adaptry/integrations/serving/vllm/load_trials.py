"""Records in the worker's journal which adapters this vLLM loads, or uses for its first answer.

An adapter can end vLLM's engine, and this process with it, while it is being loaded or used in a computation.
A trial of an adapter ends when the engine has answered a request for it, has refused to load it, or has
loaded it and has no request for it. In the last case, the adapter's first request begins another trial. If
the engine has ended, every trial stays in the journal, for the next process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.serving.cache.cache import CachedAdapter
from adaptry.integrations.serving.vllm.draining_adapters import ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.observed_requests import FinishedRequest
from adaptry.integrations.serving.vllm.worker import VllmWorker
from adaptry.integrations.serving.worker.load_journal import LoadAttempt


@dataclass(slots=True, eq=False)
class Trial:
    """A running attempt, with its key in the journal. `adapter` is None until it is handed to vLLM."""

    key: str
    attempt: LoadAttempt
    adapter: ResolvedAdapter | None = None

    def is_over(self, vllm: InProcessVllm, in_use: frozenset[int]) -> bool:
        one = self.adapter
        if one is not None and (one.has_answered or one.lora_id in in_use):
            return one.has_answered
        return not vllm.is_resolving(self.attempt.name)


class LoadTrials:
    """The trials of one vLLM. `loaded` returns the adapters that are loaded or draining."""

    def __init__(self, loaded: Callable[[], Iterable[ResolvedAdapter]]) -> None:
        self._loaded = loaded
        self._running: list[Trial] = []
        self._worker: VllmWorker | None = None

    async def begin(
        self, worker: VllmWorker, name: str, parts: Sequence[CachedAdapter], stack_key: str | None
    ) -> Trial:
        """Begins a trial before vLLM loads the parts under the name. Raises the errors of
        `LoadJournal.begin`.
        """
        self._worker = worker
        trial = Trial(_key(parts, stack_key), _attempt(name, parts))
        self._running.append(trial)  # `settle` ends it if this task is cancelled
        try:
            await worker.run(worker.journal.begin, trial.key, trial.attempt)
        except Exception:
            self._running.remove(trial)
            raise
        return trial

    def note_started(self, lora_id: int) -> None:
        """Called before a request for the adapter with this id is sent to the engine."""
        for one in self._loaded():
            if one.lora_id != lora_id or one.has_answered or self._worker is None:
                continue
            if not any(trial.adapter is one for trial in self._running):
                trial = Trial(_key(one.parts, one.stack_key), _attempt(one.name, one.parts), one)
                self._running.append(trial)
                self._worker.journal.note_first_request(trial.key, trial.attempt)

    def note_finished(self, request: FinishedRequest) -> None:
        """Called when a request for an adapter has ended. Its success is recorded at once: otherwise, another
        adapter that ends the engine a moment later would make this one wait too."""
        if request.status != 200 or self._worker is None:
            return
        for one in self._loaded():
            if one.lora_id == request.lora_id and not one.has_answered:
                one.has_answered = True
                self._worker.begin(self._worker.journal.succeed, _key(one.parts, one.stack_key))

    async def settle(self, vllm: InProcessVllm, worker: VllmWorker) -> None:
        """Records which trials are over."""
        if vllm.is_dead:
            return
        in_use = vllm.ids_in_use()
        over = [trial for trial in self._running if trial.is_over(vllm, in_use)]
        self._running = [trial for trial in self._running if trial not in over]
        running = {trial.key for trial in self._running}
        for key in {trial.key for trial in over} - running:
            await worker.run(worker.journal.end, key)


def suspects_last(worker: VllmWorker, names: Iterable[str]) -> list[str]:
    """The names, with those last that were being loaded or first used when an earlier process ended."""
    return sorted(names, key=worker.journal.is_suspect)


def _key(parts: Sequence[CachedAdapter], stack_key: str | None) -> str:
    return stack_key or str(parts[0].digest)


def _attempt(name: str, parts: Sequence[CachedAdapter]) -> LoadAttempt:
    return LoadAttempt(name=name, label=" and ".join(part.version.label for part in parts))
