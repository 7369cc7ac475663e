"""The contract of every registry, local or remote. Subclass `RegistryContract` and override `make_registry`,
and for a remote registry also `stores`.

`make_registry(identity)` returns the same, initially empty, registry for that identity, including the
anonymous one. The identities are those of `contract.fixtures` and `identity.LOCAL`, who may do everything.
"""

from __future__ import annotations

from adaptry.testing.contract.adapters import AdaptersContract
from adaptry.testing.contract.aliases import AliasesContract
from adaptry.testing.contract.approvals import ApprovalsContract
from adaptry.testing.contract.base_names import BaseNamesContract
from adaptry.testing.contract.base_visibility import BaseVisibilityContract
from adaptry.testing.contract.bases import BasesContract
from adaptry.testing.contract.batch_reads import BatchReadsContract
from adaptry.testing.contract.branches import BranchesContract
from adaptry.testing.contract.commits import CommitsContract
from adaptry.testing.contract.cursors import CursorsContract
from adaptry.testing.contract.events import EventsContract
from adaptry.testing.contract.evidence import EvidenceContract
from adaptry.testing.contract.inbox import InboxContract
from adaptry.testing.contract.inference import InferenceContract
from adaptry.testing.contract.inspections import InspectionsContract
from adaptry.testing.contract.jobs import JobsContract
from adaptry.testing.contract.policies import PoliciesContract
from adaptry.testing.contract.removal import RemovalContract
from adaptry.testing.contract.revisions import RevisionsContract
from adaptry.testing.contract.rollouts import RolloutsContract
from adaptry.testing.contract.search import SearchContract
from adaptry.testing.contract.states import StatesContract
from adaptry.testing.contract.tenants import TenantsContract
from adaptry.testing.contract.uploads import UploadsContract
from adaptry.testing.contract.webhooks import WebhooksContract
from adaptry.testing.contract.workers import WorkersContract

__all__ = ["RegistryContract"]


class RegistryContract(
    AdaptersContract,
    UploadsContract,
    RevisionsContract,
    InspectionsContract,
    AliasesContract,
    BatchReadsContract,
    StatesContract,
    CommitsContract,
    CursorsContract,
    BranchesContract,
    WorkersContract,
    RolloutsContract,
    SearchContract,
    BasesContract,
    BaseNamesContract,
    BaseVisibilityContract,
    EventsContract,
    EvidenceContract,
    InboxContract,
    PoliciesContract,
    ApprovalsContract,
    RemovalContract,
    JobsContract,
    InferenceContract,
    WebhooksContract,
    TenantsContract,
):
    """All promises of `Registry`, one test each."""
