"""`LocalRegistry`: the registry over a catalog and a blob store, on this machine.

Every method decides by the identity it acts for, then by the rules, then changes what is stored: bytes first,
then rows with their event in one transaction. Safe to use from many threads, and beside other processes on
the same folder.
"""

from __future__ import annotations

from adaptry.core.identity import Identity
from adaptry.storage.local.adapters import LocalAdapters
from adaptry.storage.local.aliases import LocalAliases
from adaptry.storage.local.bases import LocalBases
from adaptry.storage.local.commits import LocalCommits
from adaptry.storage.local.events import LocalEvents
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.inspections import LocalInspections
from adaptry.storage.local.jobs import LocalJobs
from adaptry.storage.local.metrics import LocalMetrics
from adaptry.storage.local.states import LocalStates
from adaptry.storage.local.uploads import LocalUploads
from adaptry.storage.local.versions import LocalVersions
from adaptry.storage.local.workers import LocalWorkers

__all__ = ["LocalRegistry"]


class LocalRegistry(
    LocalAdapters,
    LocalUploads,
    LocalCommits,
    LocalVersions,
    LocalInspections,
    LocalStates,
    LocalAliases,
    LocalWorkers,
    LocalMetrics,
    LocalBases,
    LocalJobs,
    LocalEvents,
):
    """`LocalRegistry(catalog, blobs, identity)`; each parent is the part of the interface it is named for
    (`LocalCommits` goes on from `LocalRevisions` and `LocalBranches`, `LocalWorkers` from
    `LocalRollouts`).
    """

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> LocalRegistry:
        """The same registry for someone else, and perhaps for one request; costs nothing, so a server makes
        one each time.
        """
        return LocalRegistry(
            self.catalog,
            self.blobs,
            identity,
            require_known_base=self.require_known_base,
            clock=self.clock,
            incremental_digests=self.incremental_digests,
            idempotency_key=idempotency_key,
            presign_uploads=self.presign_uploads,
            inspector=self.inspector,
        )
