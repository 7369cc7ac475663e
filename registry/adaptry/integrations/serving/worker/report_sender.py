"""Sends worker status reports and keeps the latest reply.

A report is sent when it differs from the last one, and repeated before its lease ends. Every reply lists the
withdrawn versions and the rollouts assigned to this worker; while there are any, a report is sent in every
pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable

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
        self._reported_at = 0.0
        self._last_report: object = None

    def send(self, report: WorkerReport) -> bool:
        """Sends the report, unless an identical one was sent and its lease is still fresh. Returns whether it
        was sent. Raises as `Registry.workers.report`."""
        content = report.model_dump()
        is_fresh = time.monotonic() - self._reported_at < report.lease / 3
        if content == self._last_report and is_fresh and not (self.reply.withdrawn or self.reply.turns):
            return False
        self.reply = self._registry.workers.report(report)
        self._recalls.store_proofs(self.reply.withdrawn, self.reply.epoch)
        self._last_report, self._reported_at = content, time.monotonic()
        return True

    def resend_recalls(self, epoch: str, make_report: Callable[[], WorkerReport]) -> None:
        """Sends a restored registry proofs of recalls it may have lost. Raises as `send`."""
        state_file = self._recalls.state_file
        state = state_file.state
        proofs = tuple(one for one in state.proofs.values() if one.epoch != epoch)
        for at in range(0, len(proofs), _PROOFS):
            chunk = proofs[at : at + _PROOFS]
            self.reply = self._registry.workers.report(make_report().model_copy(update={"recalled": chunk}))
        state.epoch, state.confirmed, self._last_report = epoch, [], None
        state_file.save_if_possible()
