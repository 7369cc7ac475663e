"""`LocalRegistry`: a class for each role of a registry, over the same catalog and blobs.

Every method decides by the identity it acts for, then by the rules, then changes what is stored: bytes first,
then rows with their event in one transaction. Safe to use from many threads, and beside other processes on
the same folder.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import damage
from adaptry.storage.catalog.damage import DamageSummary
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local.adapters import LocalAdapters
from adaptry.storage.local.aliases import LocalAliases
from adaptry.storage.local.bases import LocalBases
from adaptry.storage.local.commits import LocalCommits
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.events import LocalEvents
from adaptry.storage.local.files import LocalFiles
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.jobs import LocalJobs
from adaptry.storage.local.metrics import LocalMetrics
from adaptry.storage.local.rollouts import LocalRollouts
from adaptry.storage.local.uploads import LocalUploads
from adaptry.storage.local.versions import LocalVersions
from adaptry.storage.local.workers import LocalWorkers


class LocalRegistry(Registry):
    """`LocalRegistry(RegistryContext(catalog, blobs, identity))`; `open_local` opens the one in a folder."""

    bases: LocalBases

    def __init__(self, context: RegistryContext) -> None:
        self.context = context
        self.adapters = LocalAdapters(context)
        self.files = LocalFiles(context)
        self.uploads = LocalUploads(context)
        self.versions = LocalVersions(context)
        self.aliases = LocalAliases(context)
        self.metrics = LocalMetrics(context)
        self.bases = LocalBases(context)
        self.commits = LocalCommits(context)
        self.events = LocalEvents(context)
        self.workers = LocalWorkers(context)
        self.rollouts = LocalRollouts(context)
        self.jobs = LocalJobs(context)

    @property
    def catalog(self) -> Catalog:
        return self.context.catalog

    @property
    def blobs(self) -> BlobStore:
        return self.context.blobs

    @property
    def identity(self) -> Identity:
        return self.context.identity

    @property
    def clock(self) -> Callable[[], datetime]:
        return self.context.clock

    def on_behalf_of(
        self, identity: Identity, idempotency_key: IdempotencyKey | None = None
    ) -> LocalRegistry:
        """The same registry for someone else, and perhaps for one request; costs nothing, so a server makes
        one each time.
        """
        return LocalRegistry(self.context.on_behalf_of(identity, idempotency_key))

    def known_damage(self) -> DamageSummary:
        """How much `verify` found to be damaged, and nobody has mended since; for whoever works in the
        registry's folder.
        """
        with self.catalog.read() as tx:
            return damage.summarise_damage(tx)

    def close(self) -> None:
        self.context.close()
