"""What every registry must do, local or remote. Subclass `RegistryContract` and override `make_registry`.

`make_registry(identity)` gives the same, at first empty, registry as that identity sees it; the anonymous one is
let in. The identities are `promises.ground`'s and `identity.LOCAL`, who may do everything.
"""

from __future__ import annotations

from adaptry.testing.contract.adapters import AdapterPromises
from adaptry.testing.contract.aliases import AliasPromises
from adaptry.testing.contract.base_names import BaseNamePromises
from adaptry.testing.contract.base_visibility import BaseSightPromises
from adaptry.testing.contract.bases import BasePromises
from adaptry.testing.contract.branches import BranchPromises
from adaptry.testing.contract.commits import CommitPromises
from adaptry.testing.contract.cursors import CursorPromises
from adaptry.testing.contract.events import FeedPromises
from adaptry.testing.contract.inspections import InspectionPromises
from adaptry.testing.contract.jobs import JobPromises
from adaptry.testing.contract.revisions import RevisionPromises
from adaptry.testing.contract.search import SearchPromises
from adaptry.testing.contract.states import StatePromises
from adaptry.testing.contract.tenants import TenantPromises
from adaptry.testing.contract.uploads import UploadPromises
from adaptry.testing.contract.workers import ResidencyPromises, RolloutPromises

__all__ = ["RegistryContract"]


class RegistryContract(
    AdapterPromises,
    UploadPromises,
    RevisionPromises,
    InspectionPromises,
    AliasPromises,
    StatePromises,
    CommitPromises,
    CursorPromises,
    BranchPromises,
    ResidencyPromises,
    RolloutPromises,
    SearchPromises,
    BasePromises,
    BaseNamePromises,
    BaseSightPromises,
    FeedPromises,
    JobPromises,
    TenantPromises,
):
    """All promises of `Registry`, one test each."""
