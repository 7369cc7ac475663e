"""The role of a registry that stores evidence: measurements of a version, and the programs that made them.

Evidence belongs to a version, by its digest: it does not move with an alias or a name. It is appended
and never changed; withdrawn evidence stays, with the reason. Metrics that were logged by hand are evidence
too; their task, error and number of documents are unknown.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field

from adaptry.core.digest import Digest
from adaptry.core.evidence.values import Direction, EvidenceFile, EvidenceFormat
from adaptry.core.manifest import FileEntry
from adaptry.core.refs import AdapterName, Ref
from adaptry.core.value import FreeText
from adaptry.registry.records import Page, Value

EvidencePart = Literal["file", "samples"]
"""Of the stored files of evidence: the results file, or the one with the value of each document."""


class EvidenceWithdrawal(Value):
    """The time, author and reason of a withdrawal."""

    at: datetime
    by: str
    reason: str


class WithdrawalRequest(Value):
    """The reason for withdrawing evidence; with `whole_file`, all values of its file are withdrawn."""

    reason: FreeText = Field(min_length=3, max_length=1024)
    whole_file: bool = False


class EvidenceInfo(Value):
    """One number that was measured for a version, whose revision is `subject`.

    `base` is the base that the version had when the evidence was added. `format` and `file` are None for a
    metric that was logged. `settings` describes how the task was run, such as `5-shot`.
    """

    id: int
    name: AdapterName
    number: int
    subject: Digest
    base: Digest | None = None
    task: str | None = None
    task_version: str | None = None
    task_hash: str | None = None
    settings: str | None = None
    metric: str
    filter: str | None = None
    value: float
    stderr: float | None = None
    n: int | None = None
    direction: Direction = "unknown"
    dataset: str | None = None
    step: int | None = None
    harness: str | None = None
    harness_version: str | None = None
    harness_commit: str | None = None
    chat_template: str | None = None
    format: EvidenceFormat | None = None
    file: Digest | None = None
    samples: Digest | None = None
    at: datetime
    by: str
    withdrawn: EvidenceWithdrawal | None = None


class EvidenceAddition(Value):
    """The outcome of adding a file: the numbers of new values and of values that were already stored."""

    subject: Digest
    number: int
    file: Digest
    added: int
    known: int


class WithdrawalResult(Value):
    """The number of values withdrawn by this call; values that were withdrawn before do not count."""

    withdrawn: int


class Evidence(ABC):
    """Measurements of versions."""

    @abstractmethod
    def add(self, ref: Ref, file: EvidenceFile) -> EvidenceAddition:
        """Adds the values of a file that was uploaded for the adapter before. Stored values, including
        withdrawn ones, are not added again.

        Raises `NotFound`, `PermissionDenied`, `Conflict` if one of its files is not uploaded, `Invalid`.
        """

    @abstractmethod
    def list(
        self,
        ref: Ref,
        *,
        task: str | None = None,
        metric: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[EvidenceInfo]:
        """The evidence of a version, newest first: all of it, or that of a task or metric. Raises
        `NotFound`.
        """

    def newest(self, refs: Sequence[Ref], limit: int) -> tuple[tuple[EvidenceInfo, ...], ...]:
        """The newest evidence of each version, at most `limit`. A registry on this machine reads them
        together. Raises `NotFound`.
        """
        return tuple(self.list(ref, limit=limit).items for ref in refs)

    @abstractmethod
    def get(self, id: int) -> EvidenceInfo:
        """Gets one measured value. Raises `NotFound`, including for an adapter that the caller may not
        read.
        """

    @abstractmethod
    def files(self, id: int) -> tuple[FileEntry, ...]:
        """The stored files of the evidence; the path of each is its `EvidencePart`. Raises `NotFound`."""

    @abstractmethod
    def read_file(self, id: int, part: EvidencePart, start: int = 0) -> Iterator[bytes]:
        """The bytes of a stored file of the evidence from `start` on, not verified. Raises `NotFound` if it
        has none.
        """

    @abstractmethod
    def withdraw(self, id: int, withdrawal: WithdrawalRequest) -> WithdrawalResult:
        """Marks the evidence as withdrawn. If it is already withdrawn, it keeps its reason.

        Raises `NotFound`, `PermissionDenied`, and `Invalid` for a metric that was logged, which a later value
        replaces.
        """
