"""The jobs role: submits, reads, cancels and retries jobs.

Submitting needs neither a running runner nor its packages: a job waits until a runner takes it. A job belongs
to a namespace; callers without read access there get `NotFound`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo, ScheduleInfo
from adaptry.registry.records import Page


class Jobs(ABC):
    """Jobs and schedules: submitting, listing, cancelling and retrying jobs."""

    @abstractmethod
    def submit(self, order: JobOrder) -> JobInfo:
        """Submits a job. It waits for a runner, and has only the caller's rights.

        Raises `Invalid` (no such kind, fields that do not parse), `PermissionDenied`.
        """

    @abstractmethod
    def get(self, id: str) -> JobInfo:
        """Gets a job. Raises `NotFound`."""

    @abstractmethod
    def list(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        """Jobs, newest first, in one state or all."""

    @abstractmethod
    def cancel(self, id: str) -> JobInfo:
        """Cancels a job: it changes nothing more, and its processes are stopped soon. Does nothing for a job
        that has ended.

        Raises `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def retry(self, id: str) -> JobInfo:
        """Restarts a failed or cancelled job; finished parts are kept. Only its submitter and administrators
        may do so, since it has its submitter's rights. Raises `Conflict` for a job that is still running or
        succeeded, `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        """The job's log, oldest first. Raises `NotFound`."""

    @abstractmethod
    def runners(self) -> tuple[RunnerInfo, ...]:
        """Runners with a recent heartbeat, in the order of their ids; empty for callers without a
        namespace.
        """

    @abstractmethod
    def schedule(self, name: str, cron: str, order: JobOrder) -> ScheduleInfo:
        """Submits the order whenever `cron` is due (`cron.GRAMMAR`), while there are runners. Missed times
        are made up for by one job, within a day. Replaces a schedule with the same name. Raises the errors of
        `submit`.
        """

    @abstractmethod
    def schedules(self) -> tuple[ScheduleInfo, ...]:
        """The schedules of the caller's namespaces, in name order."""

    @abstractmethod
    def unschedule(self, name: str, namespace: str | None = None) -> None:
        """Deletes the schedule `name` in `namespace`; by default, the only one with this name that the caller
        sees.

        Jobs that were already submitted continue. Raises `NotFound`, `PermissionDenied`, `Conflict` if
        several namespaces have a schedule with this name.
        """
