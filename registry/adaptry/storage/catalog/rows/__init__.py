"""The tables. Private to the catalog: what leaves it is made of `records`.

Digests are their 64 hex digits. Names of tables and columns are the vocabulary of the project. A change here
needs a migration; a test compares the two. All of them are imported here, so that whoever has one has
`Row.metadata` whole.
"""

from adaptry.storage.catalog.rows.adapters import AdapterRow, AliasRow, NamespaceRow
from adaptry.storage.catalog.rows.bases import BaseFileRow, BaseNameRow, BaseRow
from adaptry.storage.catalog.rows.commits import CommitRow, MarkRow
from adaptry.storage.catalog.rows.damage import DamagedFileRow, DamagedRevisionRow
from adaptry.storage.catalog.rows.epochs import EpochRow, RecallClaimRow
from adaptry.storage.catalog.rows.events import AnswerRow, EventRow
from adaptry.storage.catalog.rows.files import FileRow, LeavingRow, UploadRow, WeightsRow
from adaptry.storage.catalog.rows.inspections import InspectionRow
from adaptry.storage.catalog.rows.jobs import JobLineRow, JobRow, JobScheduleRow, JobStepRow, RunnerRow
from adaptry.storage.catalog.rows.metrics import MetricRow, MetricSummaryRow
from adaptry.storage.catalog.rows.row import Moment, Row
from adaptry.storage.catalog.rows.terms import PostingRow, TermRow
from adaptry.storage.catalog.rows.tokens import TokenRow
from adaptry.storage.catalog.rows.versions import WITHDRAWN, RevisionRow, VersionDetailRow, VersionRow
from adaptry.storage.catalog.rows.workers import ResidentRow, RolloutRow, WorkerRow

__all__ = [
    "WITHDRAWN",
    "AdapterRow",
    "AliasRow",
    "AnswerRow",
    "BaseFileRow",
    "BaseNameRow",
    "BaseRow",
    "CommitRow",
    "DamagedFileRow",
    "DamagedRevisionRow",
    "EpochRow",
    "EventRow",
    "FileRow",
    "InspectionRow",
    "JobLineRow",
    "JobRow",
    "JobScheduleRow",
    "JobStepRow",
    "LeavingRow",
    "MarkRow",
    "MetricRow",
    "MetricSummaryRow",
    "Moment",
    "NamespaceRow",
    "PostingRow",
    "RecallClaimRow",
    "ResidentRow",
    "RevisionRow",
    "RolloutRow",
    "Row",
    "RunnerRow",
    "TermRow",
    "TokenRow",
    "UploadRow",
    "VersionDetailRow",
    "VersionRow",
    "WeightsRow",
    "WorkerRow",
]
