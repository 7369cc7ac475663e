"""The role of a registry that takes jobs: submit, read, cancel and retry jobs.

Submitting needs no runner nearby, nor the packages of one: a job waits until a runner takes it. A job belongs
to a namespace: those who may not read there get `NotFound`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from adaptry.registry.job_types.records import JobInfo, JobOrder, JobState, LogLine, RunnerInfo, ScheduleInfo
from adaptry.registry.records import Page


class Jobs(ABC):
    """Jobs are named by their ids."""

    @abstractmethod
    def submit(self, order: JobOrder) -> JobInfo:
        """A job that waits for a runner; it will have the caller's rights, no more.

        Raises `Invalid` (no such kind, fields that do not parse), `PermissionDenied`.
        """

    @abstractmethod
    def get(self, id: str) -> JobInfo:
        """Raises `NotFound`."""

    @abstractmethod
    def list(
        self, state: JobState | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[JobInfo]:
        """Newest first; of one state, or all."""

    @abstractmethod
    def cancel(self, id: str) -> JobInfo:
        """From now on it changes nothing; what computes is stopped soon. One that has ended stays as it is.

        Raises `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def retry(self, id: str) -> JobInfo:
        """Queues a job that failed or was cancelled again; parts that were finished are kept. Raises
        `Conflict` for one that has not ended or is done, `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def log(self, id: str, cursor: str | None = None, limit: int = 50) -> Page[LogLine]:
        """What its steps said, oldest first. Raises `NotFound`."""

    @abstractmethod
    def runners(self) -> tuple[RunnerInfo, ...]:
        """Those that were heard of lately, in the order of their ids. Nobody without a namespace sees any."""

    @abstractmethod
    def schedule(self, name: str, cron: str, order: JobOrder) -> ScheduleInfo:
        """Gives the order whenever `cron` says so (`cron.GRAMMAR`), as long as there are runners; a time that
        passed while there were none is made up for within a day, once. Replaces one of that name. Raises as
        `submit`.
        """

    @abstractmethod
    def schedules(self) -> tuple[ScheduleInfo, ...]:
        """Those of the namespaces that the caller holds, in name order."""

    @abstractmethod
    def unschedule(self, name: str, namespace: str | None = None) -> None:
        """Takes back the schedule of that name in `namespace`; without one, the only one of that name that
        the caller sees.

        Jobs that were submitted already go on. Raises `NotFound`, `PermissionDenied`, `Conflict` where
        several namespaces have one of that name.
        """
