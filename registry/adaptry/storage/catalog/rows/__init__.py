"""The tables. Private to the catalog, which returns values from `records`.

Digests are stored as 64 hex digits. Names of tables and columns are the vocabulary of the project. A change
here needs a migration; a test compares the two. All tables are imported here, so that `Row.metadata` is
always complete.
"""

from adaptry.storage.catalog.rows.adapters import EXISTS, HAS_REMOVAL, AdapterRow, AliasRow, NamespaceRow
from adaptry.storage.catalog.rows.audit_log import (
    AuditCheckpointRow,
    AuditEntryRow,
    AuditStateRow,
    AuditSubtreeRow,
)
from adaptry.storage.catalog.rows.bases import BaseFileRow, BaseNameRow, BaseRow
from adaptry.storage.catalog.rows.commits import CommitRow, GitRefRow
from adaptry.storage.catalog.rows.damage import DamagedFileRow, DamagedRevisionRow
from adaptry.storage.catalog.rows.devices import DeviceSignInRow, RefreshTokenRow
from adaptry.storage.catalog.rows.epochs import EpochRow, RecallClaimRow
from adaptry.storage.catalog.rows.events import EventRow, StoredResponseRow
from adaptry.storage.catalog.rows.files import FileRow, PendingDeleteRow, UploadRow, WeightsDigestRow
from adaptry.storage.catalog.rows.inbox import PostedFileRow
from adaptry.storage.catalog.rows.inspections import InspectionRow
from adaptry.storage.catalog.rows.jobs import JobLineRow, JobRow, JobScheduleRow, JobStepRow, RunnerRow
from adaptry.storage.catalog.rows.metrics import MetricRow, MetricSummaryRow
from adaptry.storage.catalog.rows.policies import ApprovalRow, PolicyRow, PromotionRow
from adaptry.storage.catalog.rows.principals import (
    AccountableRow,
    GrantRow,
    GroupMemberRow,
    GroupRow,
    InvitationRow,
    PrincipalRow,
    TokenRow,
)
from adaptry.storage.catalog.rows.publishers import IssuerRow, PublisherRow, UsedIdTokenRow
from adaptry.storage.catalog.rows.quotas import QuotaRow, RequestUseRow, StoredUseRow
from adaptry.storage.catalog.rows.row import Moment, Row, name_postgres_conditions
from adaptry.storage.catalog.rows.sign_ins import ExternalUserRow, ProviderGroupRow
from adaptry.storage.catalog.rows.terms import IndexUpdateRow, PostingRow, TermRow
from adaptry.storage.catalog.rows.versions import WITHDRAWN, RevisionRow, VersionDetailRow, VersionRow
from adaptry.storage.catalog.rows.webhooks import WebhookDeliveryRow, WebhookRow
from adaptry.storage.catalog.rows.weight_measurements import WeightMeasurementRow
from adaptry.storage.catalog.rows.workers import LOADED, ResidentRow, RolloutRow, WorkerRow

__all__ = [
    "EXISTS",
    "HAS_REMOVAL",
    "LOADED",
    "WITHDRAWN",
    "AccountableRow",
    "AdapterRow",
    "AliasRow",
    "ApprovalRow",
    "AuditCheckpointRow",
    "AuditEntryRow",
    "AuditStateRow",
    "AuditSubtreeRow",
    "BaseFileRow",
    "BaseNameRow",
    "BaseRow",
    "CommitRow",
    "DamagedFileRow",
    "DamagedRevisionRow",
    "DeviceSignInRow",
    "EpochRow",
    "EventRow",
    "ExternalUserRow",
    "FileRow",
    "GitRefRow",
    "GrantRow",
    "GroupMemberRow",
    "GroupRow",
    "IndexUpdateRow",
    "InspectionRow",
    "InvitationRow",
    "IssuerRow",
    "JobLineRow",
    "JobRow",
    "JobScheduleRow",
    "JobStepRow",
    "MetricRow",
    "MetricSummaryRow",
    "Moment",
    "NamespaceRow",
    "PendingDeleteRow",
    "PolicyRow",
    "PostedFileRow",
    "PostingRow",
    "PrincipalRow",
    "PromotionRow",
    "ProviderGroupRow",
    "PublisherRow",
    "QuotaRow",
    "RecallClaimRow",
    "RefreshTokenRow",
    "RequestUseRow",
    "ResidentRow",
    "RevisionRow",
    "RolloutRow",
    "Row",
    "RunnerRow",
    "StoredResponseRow",
    "StoredUseRow",
    "TermRow",
    "TokenRow",
    "UploadRow",
    "UsedIdTokenRow",
    "VersionDetailRow",
    "VersionRow",
    "WebhookDeliveryRow",
    "WebhookRow",
    "WeightMeasurementRow",
    "WeightsDigestRow",
    "WorkerRow",
    "name_postgres_conditions",
]
