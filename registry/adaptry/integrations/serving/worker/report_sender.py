"""Sends worker status reports and keeps the latest reply.

A report is sent when it differs from the last one, and repeated before its lease ends. Every reply lists the
withdrawn versions and the rollouts assigned to this worker; while there are any, a report is sent in every
pass. A pass that takes long, because an engine is slow to load an adapter, repeats the last report meanwhile.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from threading import Event, Lock, Thread

from adaptry.core.errors import AdaptryError
from adaptry.integrations.serving.worker.recall_executor import RecallExecutor
from adaptry.registry.interface import Registry
from adaptry.registry.workers import ReportReply, WorkerReport

_PROOFS = 4096  # recall proofs per report


class ReportSender:
    """Sends one worker's reports. `reply` is the registry's latest reply."""

    def __init__(self, registry: Registry, recalls: RecallExecutor) -> None:
        self.reply: ReportReply = ReportReply(seq=0)
        self._registry = registry
        self._recalls = recalls
        self._lock = Lock()  # `renewing` sends on another thread
        self._reported_at = 0.0
        self._last_report: WorkerReport | None = None

    def send(self, report: WorkerReport) -> bool:
        """Sends the report, unless an identical one was sent and its lease is still fresh. Returns whether it
        was sent. Raises the errors of `Registry.workers.report`."""
        with self._lock:
            is_known = report == self._last_report and self._is_fresh(report)
            if is_known and not (self.reply.withdrawn or self.reply.turns):
                return False
            self._send(report)
        self._recalls.store_proofs(self.reply.withdrawn, self.reply.epoch)
        return True

    @contextlib.contextmanager
    def renewing(self, lease: int) -> Iterator[None]:
        """Until the block ends, repeats the last report on another thread before its lease ends. The report
        lists the loaded versions and those about to be loaded, so it stays true while an engine loads
        something."""
        done = Event()
        thread = Thread(target=self._renew_until, args=(done, lease / 3), name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _renew_until(self, done: Event, every: float) -> None:
        while not done.wait(every):
            with self._lock, contextlib.suppress(AdaptryError):  # the next `send` raises it
                if self._last_report and not self._is_fresh(self._last_report):
                    self._send(self._last_report)

    def _send(self, report: WorkerReport) -> None:
        self.reply = self._registry.workers.report(report)
        # A proof that a version was dropped counts once: it may be loaded again later.
        self._last_report = report.model_copy(update={"dropped": ()})
        self._reported_at = time.monotonic()

    def _is_fresh(self, report: WorkerReport) -> bool:
        return time.monotonic() - self._reported_at < report.lease / 3

    def resend_recalls(self, epoch: str, make_report: Callable[[], WorkerReport]) -> None:
        """Sends a restored registry proofs of the recalls that it may have lost. Raises the errors of
        `send`.
        """
        state_file = self._recalls.state_file
        state = state_file.state
        proofs = tuple(one for one in state.proofs.values() if one.epoch != epoch)
        with self._lock:
            for at in range(0, len(proofs), _PROOFS):
                chunk = proofs[at : at + _PROOFS]
                self.reply = self._registry.workers.report(
                    make_report().model_copy(update={"recalled": chunk})
                )
            self._last_report = None
        state.epoch, state.confirmed = epoch, []
        state_file.save_if_possible()
