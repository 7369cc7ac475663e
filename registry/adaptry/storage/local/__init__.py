"""`LocalRegistry`: the registry over a catalog and a blob store, on this machine.

Every method decides by the identity it acts for, then by the rules, then changes what is stored: bytes first,
then rows with their event in one transaction. Safe to use from many threads, and beside other processes on the
same folder.
"""

from __future__ import annotations

from adaptry.core.identity import Identity
from adaptry.storage.local.adapters import Adapters
from adaptry.storage.local.aliases import Aliases
from adaptry.storage.local.bases import Bases
from adaptry.storage.local.commits import Commits
from adaptry.storage.local.events import LocalFeed
from adaptry.storage.local.idempotency import Once
from adaptry.storage.local.inspections import Inspections
from adaptry.storage.local.jobs import Jobs
from adaptry.storage.local.metrics import Metrics
from adaptry.storage.local.states import States
from adaptry.storage.local.uploads import Uploads
from adaptry.storage.local.versions import Versions
from adaptry.storage.local.workers import Residency

__all__ = ["LocalRegistry"]


class LocalRegistry(
    Adapters,
    Uploads,
    Commits,
    Versions,
    Inspections,
    States,
    Aliases,
    Residency,
    Metrics,
    Bases,
    Jobs,
    LocalFeed,
):
    """`LocalRegistry(catalog, blobs, identity)`; each parent is the part of the interface it is named for (`Commits` goes on from `Revisions` and `Branches`, `Residency` from `Rollouts`)."""

    def on_behalf_of(self, identity: Identity, once: Once | None = None) -> LocalRegistry:
        """The same registry for someone else, and perhaps for one request; costs nothing, so a server makes one each time."""
        return LocalRegistry(
            self.catalog,
            self.blobs,
            identity,
            require_known_base=self.require_known_base,
            clock=self.clock,
            weighing=self.weighing,
            once=once,
            presign_uploads=self.presign_uploads,
            inspector=self.inspector,
        )
