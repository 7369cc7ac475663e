"""What every registry must do, local or remote. Subclass `RegistryContract` and override `make_registry`.

`make_registry(identity)` gives the same, at first empty, registry as that identity sees it; the anonymous one is
let in. The identities are `promises.ground`'s and `identity.LOCAL`, who may do everything.
"""

from __future__ import annotations

from adaptry.testing.promises.adapters import AdapterPromises
from adaptry.testing.promises.aliases import AliasPromises
from adaptry.testing.promises.base_names import BaseNamePromises
from adaptry.testing.promises.base_sight import BaseSightPromises
from adaptry.testing.promises.bases import BasePromises
from adaptry.testing.promises.branches import BranchPromises
from adaptry.testing.promises.commits import CommitPromises
from adaptry.testing.promises.cursors import CursorPromises
from adaptry.testing.promises.feed import FeedPromises
from adaptry.testing.promises.inspections import InspectionPromises
from adaptry.testing.promises.jobs import JobPromises
from adaptry.testing.promises.residency import ResidencyPromises, RolloutPromises
from adaptry.testing.promises.revisions import RevisionPromises
from adaptry.testing.promises.search import SearchPromises
from adaptry.testing.promises.states import StatePromises
from adaptry.testing.promises.tenants import TenantPromises
from adaptry.testing.promises.uploads import UploadPromises

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
