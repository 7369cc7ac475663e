"""The part of a local registry about jobs: rows that runners will find. Nothing here runs one."""

from __future__ import annotations

import secrets

from pydantic import TypeAdapter

from adaptry.catalog import cursors, jobs, runners, steps
from adaptry.catalog.database import Transaction
from adaptry.digest import Digest
from adaptry.errors import Conflict, Denied, NotFound
from adaptry.jobs.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo
from adaptry.jobs.tasks import parse_task
from adaptry.local.ground import Ground
from adaptry.records import Page

_INFO = TypeAdapter(JobInfo)


class Jobs(Ground):
    """`submit_job` to `runners`."""

    def submit_job(self, order: JobOrder) -> JobInfo:
        task = parse_task(order.kind, order.task)
        self._require_asking(task.namespace, order.kind)
        # As its kind understood it, so that what is shown and what is done are the same.
        order = order.model_copy(update={"task": task.model_dump(mode="json", exclude_defaults=True)})
        id = f"job-{secrets.token_hex(8)}"
        with self.catalog.write() as tx:
            return self.once(
                tx, _INFO, lambda: jobs.insert(tx, id, order, task.namespace, self.identity, self.clock())
            )

    def job(self, id: str) -> JobInfo:
        with self.catalog.read() as tx:
            return self._job(tx, id)

    def jobs(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            return jobs.page(tx, self.identity, state, cursor, limit)

    def cancel_job(self, id: str) -> JobInfo:
        with self.catalog.write() as tx:
            found = self._job(tx, id)
            self._require_asking(found.namespace, found.kind)
            jobs.finish(tx, id, "cancelled", self.clock())
            return self._job(tx, id)

    def retry_job(self, id: str) -> JobInfo:
        with self.catalog.write() as tx:
            found = self._job(tx, id)
            self._require_asking(found.namespace, found.kind)
            if found.state not in ("failed", "cancelled"):
                raise Conflict(
                    f"job {id} is {found.state}; only one that failed or was cancelled is tried again"
                )
            jobs.reopen(tx, id)
            came_to = steps.results(tx, id)
            steps.forget(tx, id, [step for step, result in came_to.items() if self._has_lost(result)])
            return self._job(tx, id)

    def job_log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        cursors.check_limit(limit)
        with self.catalog.read() as tx:
            self._job(tx, id)
            return jobs.log(tx, id, cursor, limit)

    def runners(self) -> tuple[RunnerInfo, ...]:
        if not self.identity.namespaces:
            return ()
        with self.catalog.read() as tx:
            return runners.every(tx)

    def _job(self, tx: Transaction, id: str) -> JobInfo:
        found = jobs.find(tx, id)
        if found is None or not self.identity.holds(found.namespace):
            raise NotFound(f"no job {id[:80]!a}; `adaptry jobs ls` shows those that you may see")
        return found

    def _has_lost(self, result: dict[str, object]) -> bool:
        """Whether a piece was stored and has been collected since, as nobody had named it."""
        digest = result.get("sha256")
        return isinstance(digest, str) and not self.blobs.has(Digest.parse(digest))

    def _require_asking(self, namespace: str, kind: str) -> None:
        """Raises `Denied`: a job does what its submitter may do, so whoever may not do that may not ask for it."""
        identity = self.identity
        if not namespace and not identity.may_administer:
            raise Denied(
                f"{identity.name} may not ask for a {kind} job, which changes what every namespace shares; ask an "
                "administrator"
            )
        if namespace and not (identity.role in ("writer", "admin") and identity.holds(namespace)):
            raise Denied(
                f"{identity.name} may not ask for jobs in {namespace!r}; ask for a token that writes to it"
            )
