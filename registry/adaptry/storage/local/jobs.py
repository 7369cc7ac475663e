"""The jobs role of a local registry: writes the rows that runners read. It runs no jobs."""

from __future__ import annotations

import re
import secrets

from adaptry.core.access.conditions import Facts
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.job_types.cron import Cron
from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo, ScheduleInfo
from adaptry.registry.job_types.tasks import parse_task
from adaptry.registry.jobs import Jobs
from adaptry.registry.records import Page
from adaptry.storage.catalog import cursors, job_steps, jobs, runners, schedules
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True)
class LocalJobs(Jobs):
    """The jobs of a local registry."""

    context: RegistryContext

    def submit(self, order: JobOrder) -> JobInfo:
        order, namespace = self._parse_order(order)
        id = f"job-{secrets.token_hex(8)}"
        with self.context.write() as tx:
            return self.context.run_once(
                tx,
                JobInfo,
                lambda: self._submit(tx, id, order, namespace),
            )

    def _submit(self, tx: Transaction, id: str, order: JobOrder, namespace: str) -> JobInfo:
        submitted = jobs.insert(tx, id, order, namespace, self.context.identity, self.context.clock())
        self.context.record(tx, "job.submit", _target(id, namespace), after={"kind": order.kind})
        return submitted

    def get(self, id: str) -> JobInfo:
        with self.context.catalog.read() as tx:
            return self._job(tx, id)

    def list(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            return jobs.page(tx, self.context.identity, state, cursor, limit)

    def cancel(self, id: str) -> JobInfo:
        with self.context.write() as tx:
            found = self._job(tx, id)
            self._require_asking(found.namespace, found.kind)
            jobs.finish(tx, id, "cancelled", self.context.clock())
            cancelled = self._job(tx, id)
            if cancelled.state != found.state:
                self._record_state(tx, "job.cancel", found, cancelled)
            return cancelled

    def retry(self, id: str) -> JobInfo:
        with self.context.write() as tx:
            found = self._job(tx, id)
            self._require_asking(found.namespace, found.kind)
            self._require_retrying(found, jobs.submitter(tx, id))
            if found.state not in ("failed", "cancelled"):
                raise Conflict(f"job {id} is {found.state}; only failed and cancelled jobs can be retried")
            jobs.reopen(tx, id)
            came_to = job_steps.results(tx, id)
            job_steps.reset_steps(
                tx, id, [step for step, result in came_to.items() if self._has_lost(result)]
            )
            reopened = self._job(tx, id)
            self._record_state(tx, "job.retry", found, reopened)
            return reopened

    def log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        cursors.check_limit(limit)
        with self.context.catalog.read() as tx:
            self._job(tx, id)
            return jobs.log(tx, id, cursor, limit)

    def runners(self) -> tuple[RunnerInfo, ...]:
        if not self.context.identity.is_member:
            return ()
        with self.context.catalog.read() as tx:
            found = runners.every(tx)
        if self.context.identity.may_administer:
            return found
        return tuple(each.model_copy(update={"host": None}) for each in found)

    def schedule(self, name: str, cron: str, order: JobOrder) -> ScheduleInfo:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"not a name for a schedule: {name[:80]!a} (1 to 64 letters, digits, '_', '.', '-')"
            )
        parsed = Cron.parse(cron)
        if not parsed.is_ever_due:
            raise Invalid(
                f"not a schedule: the day of {parsed.text!a} never comes (30 February, 31 April and the like)"
            )
        order, namespace = self._parse_order(order)
        with self.context.write() as tx:
            if known := schedules.find(tx, name, namespace):
                self._require_asking(known.namespace, known.order.kind)
            made = schedules.put(
                tx, name, parsed, order, namespace, self.context.identity, self.context.clock()
            )
            was = {"cron": known.cron, "kind": known.order.kind} if known else None
            now = {"cron": made.cron, "kind": made.order.kind}
            self.context.record(tx, "schedule.set", _target(name, namespace), before=was, after=now)
            return made

    def schedules(self) -> tuple[ScheduleInfo, ...]:
        with self.context.catalog.read() as tx:
            return tuple(
                each for each in schedules.every(tx) if self.context.identity.has_namespace(each.namespace)
            )

    def unschedule(self, name: str, namespace: str | None = None) -> None:
        with self.context.write() as tx:
            known = [
                each
                for each in schedules.named(tx, name)
                if namespace in (None, each.namespace) and self.context.identity.has_namespace(each.namespace)
            ]
            if not known:
                raise NotFound(
                    f"no schedule {name[:80]!a}; `adaptry jobs schedules` shows those that you may see"
                )
            if len(known) > 1:
                namespaces = ", ".join(each.namespace or "''" for each in known[:8])
                raise Conflict(
                    f"several namespaces have a schedule {name}: {namespaces}; name one with --namespace"
                )
            self._require_asking(known[0].namespace, known[0].order.kind)
            schedules.remove(tx, name, known[0].namespace)
            was = {"cron": known[0].cron, "kind": known[0].order.kind}
            target = _target(name, known[0].namespace)
            self.context.record(tx, "schedule.delete", target, before=was)

    def _record_state(self, tx: Transaction, action: str, was: JobInfo, now: JobInfo) -> None:
        states = {"state": was.state}, {"state": now.state}
        target = _target(now.id, now.namespace)
        self.context.record(tx, action, target, before=states[0], after=states[1])

    def _parse_order(self, order: JobOrder) -> tuple[JobOrder, str]:
        """The task, parsed by its kind so that the displayed and the executed task are equal, and its owner.

        Raises `Invalid`, `PermissionDenied`.
        """
        task = parse_task(order.kind, order.task)
        self._require_asking(task.namespace, order.kind)
        fields = task.model_dump(mode="json", exclude_defaults=True)
        return order.model_copy(update={"task": fields}), task.namespace

    def _job(self, tx: Transaction, id: str) -> JobInfo:
        found = jobs.find(tx, id)
        if found is None or not self.context.identity.has_namespace(found.namespace):
            raise NotFound(f"no job {id[:80]!a}; `adaptry jobs ls` shows those that you may see")
        return found

    def _has_lost(self, result: dict[str, object]) -> bool:
        """Whether a stored piece of the job was garbage collected because nothing referred to it."""
        digest = result.get("sha256")
        return isinstance(digest, str) and not self.context.blobs.has(Digest.parse(digest))

    def _require_retrying(self, job: JobInfo, submitter: Identity) -> None:
        """Raises `PermissionDenied` if the caller may not retry the job, which keeps the rights with which it
        was submitted.
        """
        if self.context.identity.may_retry(submitter):
            return
        again = (
            f"submit the same task as your own job (adaptry jobs submit {job.kind} …, or on the job's page)"
        )
        if self.context.identity.name == submitter.name:
            raise PermissionDenied(
                f"job {job.id} was submitted with a token that allows more than this one, and would run with"
                f" the rights of that token; retry it with an unlimited token, or {again}"
            )
        raise PermissionDenied(
            f"job {job.id} has the rights of {submitter.name}, who submitted it, and what it creates is"
            f" theirs, so only {submitter.name} and administrators may retry it; {again}"
        )

    def _require_asking(self, namespace: str, kind: str) -> None:
        """Raises `PermissionDenied` if the caller may not submit the job: it runs with the caller's rights,
        which must be sufficient.
        """
        identity = self.context.identity
        if not namespace and not identity.may_administer:
            raise PermissionDenied(
                f"{identity.name} may not submit a {kind} job, which changes data of all namespaces;"
                " ask an administrator"
            )
        decision = identity.decide("job.run", namespace, facts=Facts(now=self.context.clock()))
        if namespace and not decision.is_allowed:
            raise PermissionDenied(
                f"{identity.name} may not submit jobs in {namespace!r} (job.run): {decision.reason}; ask an"
                " owner of it"
            )


def _target(name: str, namespace: str) -> AuditTarget:
    """A job or a schedule. Only administrators may read one without a namespace."""
    return AuditTarget(name, namespace or None)
