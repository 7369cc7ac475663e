"""The workers role of a local registry: workers' reports, and the replies."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from adaptry.core.errors import Conflict, NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.registry.records import Page
from adaptry.registry.workers import (
    ReportReply,
    ResidentInfo,
    ResidentSummary,
    WorkerGoneRequest,
    WorkerInfo,
    WorkerReport,
    Workers,
)
from adaptry.storage.catalog import epochs, events, recall_claims, worker_reports, workers
from adaptry.storage.catalog import worker_queries as residents
from adaptry.storage.catalog.access import read_scope
from adaptry.storage.catalog.cursors import check_limit
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.versions import to_record
from adaptry.storage.catalog.worker_reports import ReportedVersion, VersionKey
from adaptry.storage.catalog.workers import WorkerRecord
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.forgotten_recalls import quarantine_forgotten
from adaptry.storage.local.gates import write_decided
from adaptry.storage.local.rollouts import LocalRollouts


@dataclass(frozen=True)
class LocalWorkers(Workers):
    """The workers of a local registry."""

    context: RegistryContext

    def report(self, report: WorkerReport) -> ReportReply:
        if not self.context.identity.may_report:
            raise PermissionDenied(
                f"{self.context.identity.name} may not report for a worker; it needs a worker's token,"
                " which an administrator creates: adaptry token create NAME --role worker --namespace"
                " NAMESPACE"
            )
        with self.context.catalog.read() as tx:
            is_renewal = worker_reports.is_renewal(tx, self._own_record(tx, report), report)
        # A worker's sign of life need not be on the disk before the reply.
        return write_decided(self.context, lambda tx: self._take(tx, report), is_durable=not is_renewal)

    def _take(self, tx: Transaction, report: WorkerReport) -> ReportReply:
        now = self.context.clock()
        known = self._own_record(tx, report)
        if known and workers.is_gone(tx, known):
            self._record(tx, "worker.returned", known)
        worker = workers.put(tx, report, self.context.identity.name, now)
        reported = report.residents or ()
        named = [(one.name, one.digest) for one in reported]
        named += [(one.name, one.digest) for one in report.dropped]
        proved = worker_reports.versions_of(
            tx, [(one.name, one.digest) for one in report.recalled], self.context.identity
        )
        found = worker_reports.versions_of(tx, named, self.context.identity)
        self._take_claims(tx, report, proved, now)
        if report.residents is not None:
            worker_reports.replace(tx, worker, reported, found, now)
        worker_reports.record_dropped(tx, worker, report.dropped, found, now)
        failed = {
            (one.served_as, one.digest): one.reason or "it failed"
            for one in reported
            if one.condition == "failed" and (one.name, one.digest) in found
        }
        return ReportReply(
            seq=events.newest(tx),
            epoch=epochs.current(tx).id,
            withdrawn=tuple(
                one.model_copy(
                    update={"proof": epochs.current(tx).proof(str(one.name), one.digest.hex, one.state)}
                )
                for one in worker_reports.withdrawals_for(tx, worker)
            ),
            turns=LocalRollouts(self.context).assignments(tx, worker, report.names, failed),
            unknown=tuple(sorted({digest for name, digest in named if (name, digest) not in found})),
        )

    def get(self, name: str, owner: str | None = None) -> WorkerInfo:
        with self.context.catalog.read() as tx:
            worker = self._seen_worker(tx, name, owner)
            return residents.info(tx, worker, read_scope(tx, self.context.identity), self.context.clock())

    def list(self, cursor: str | None = None, limit: int = 50) -> Page[WorkerInfo]:
        check_limit(limit)
        with self.context.catalog.read() as tx:
            scope = read_scope(tx, self.context.identity)
            return residents.page(tx, self.context.identity.name, scope, cursor, limit, self.context.clock())

    def declare_gone(self, name: str, request: WorkerGoneRequest, owner: str | None = None) -> WorkerInfo:
        with self.context.write() as tx:
            worker, now = self._managed_worker(tx, name, owner, "declare"), self.context.clock()
            if not workers.is_silent(tx, worker, now):
                raise Conflict(
                    f"{name} reported within its lease, so it is not gone; stop its engine, wait until"
                    f" `adaptry workers show {name}` shows its state as unknown, and then declare it gone"
                )
            workers.declare_gone(tx, worker, now, self.context.identity.name, request.reason)
            self._record(tx, "worker.gone", worker, request.reason)
            return residents.info(tx, worker, read_scope(tx, self.context.identity), now)

    def forget(self, name: str, owner: str | None = None) -> None:
        with self.context.write() as tx:
            worker = self._managed_worker(tx, name, owner, "forget")
            if open_recalls := worker_reports.withdrawals_for(tx, worker):
                first = open_recalls[0]
                raise Conflict(
                    f"{name} had {first.name}@{first.number}, which is {first.state}, and did not prove that"
                    " it dropped it, so its record is part of that recall; if its engine is gone, declare it:"
                    f" adaptry workers declare-gone {name} --reason TEXT"
                )
            if worker_reports.may_serve(tx, worker) and not workers.is_gone(tx, worker):
                raise Conflict(
                    f"{name} may still serve versions that it reported; if its engine is gone, declare it:"
                    f" adaptry workers declare-gone {name} --reason TEXT"
                )
            workers.delete(tx, worker)
            self._record(tx, "worker.forgotten", worker)

    def residents(self, ref: Ref) -> tuple[ResidentInfo, ...]:
        with self.context.catalog.read() as tx:
            return residents.of_version(
                tx, to_record(self.context.resolve(tx, ref)).key, self.context.clock()
            )

    def resident_summary(self, ref: Ref, limit: int = 20, served_as: str | None = None) -> ResidentSummary:
        check_limit(limit)
        with self.context.catalog.read() as tx:
            key = to_record(self.context.resolve(tx, ref)).key
            return residents.summary(tx, key, self.context.clock(), limit, served_as)

    def _take_claims(
        self,
        tx: Transaction,
        report: WorkerReport,
        found: Mapping[VersionKey, ReportedVersion],
        now: datetime,
    ) -> None:
        """Quarantines versions that the registry withdrew before its restore, as the worker proves by a
        signature.
        """
        epoch = epochs.current(tx)  # read here, not by the catalog: in memory, transactions cannot be nested
        for one in report.recalled:
            if not epoch.is_proof(one.proof, one.epoch, str(one.name), one.digest.hex, one.state):
                continue
            if recall_claims.record_claim(
                tx, one.name, one.digest, one.state, f"worker {report.worker}", now
            ):
                detail = {
                    "adapter": one.name,
                    "digest": one.digest,
                    "was": one.state,
                    "worker": report.worker,
                }
                events.record(tx, "recall.remembered", at=now, by=self.context.identity.name, detail=detail)
                if known := found.get((one.name, one.digest)):
                    quarantine_forgotten(tx, known.version_key, one.name, one.digest, now)

    def _managed_worker(self, tx: Transaction, name: str, owner: str | None, verb: str) -> WorkerRecord:
        """A worker that the caller may declare gone and forget. Raises `PermissionDenied`."""
        worker, identity = self._seen_worker(tx, name, owner), self.context.identity
        is_own = worker.owner == identity.name and identity.may_report  # its owner's other tokens may not
        if not is_own and not identity.may_administer:
            what = f"{verb} {name}{' gone' if verb == 'declare' else ''}"
            raise PermissionDenied(
                f"{identity.name} may not {what}; its own token (worker.report) or an administrator may"
            )
        return worker

    def _record(self, tx: Transaction, kind: str, worker: WorkerRecord, reason: str | None = None) -> None:
        detail = {"worker": worker.name, "owner": worker.owner, "engine": worker.engine, "reason": reason}
        by = self.context.identity.name
        events.record(tx, kind, at=self.context.clock(), by=by, detail=detail)

    def _own_record(self, tx: Transaction, report: WorkerReport) -> WorkerRecord | None:
        return workers.find(tx, report.worker, self.context.identity.name)

    def _seen_worker(self, tx: Transaction, name: str, owner: str | None) -> WorkerRecord:
        scope, caller = read_scope(tx, self.context.identity), self.context.identity.name
        seen = [
            each
            for each in workers.named(tx, name)
            if owner in (None, each.owner) and residents.may_see(tx, each, caller, scope)
        ]
        if not seen:
            raise NotFound(f"no worker {name[:96]!a}; `adaptry workers ls` shows all workers")
        mine = [each for each in seen if each.owner == caller]
        if len(seen) > 1 and not mine:
            owners = ", ".join(each.owner for each in seen[:8])
            raise Conflict(f"several owners have a worker {name}: {owners}; name one with --owner")
        return (mine or seen)[0]
