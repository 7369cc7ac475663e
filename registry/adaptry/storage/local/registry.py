"""`LocalRegistry`: a class for each role of a registry, over the same catalog and blobs.

Every method checks the identity that it acts for, then the rules, then changes stored data: bytes first, then
rows with their event in one transaction. Safe to use from many threads, and beside other processes on the
same folder.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from adaptry.core.display import shorten
from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import damage
from adaptry.storage.catalog.damage import DamageSummary
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local.adapters import LocalAdapters
from adaptry.storage.local.aliases import LocalAliases
from adaptry.storage.local.audit_log import LocalAuditLog
from adaptry.storage.local.bases import LocalBases
from adaptry.storage.local.commits import LocalCommits
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.events import LocalEvents
from adaptry.storage.local.evidence import LocalEvidence
from adaptry.storage.local.files import LocalFiles
from adaptry.storage.local.grants import LocalGrants
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.jobs import LocalJobs
from adaptry.storage.local.metrics import LocalMetrics
from adaptry.storage.local.policies import LocalPolicies
from adaptry.storage.local.principals import LocalPrincipals
from adaptry.storage.local.publishers import LocalPublishers
from adaptry.storage.local.quotas import LocalQuotas
from adaptry.storage.local.rollouts import LocalRollouts
from adaptry.storage.local.sso import LocalSingleSignOn
from adaptry.storage.local.tokens import LocalTokens
from adaptry.storage.local.uploads import LocalUploads
from adaptry.storage.local.versions import LocalVersions
from adaptry.storage.local.webhooks import LocalWebhooks
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
        self.evidence = LocalEvidence(context)
        self.bases = LocalBases(context)
        self.commits = LocalCommits(context)
        self.events = LocalEvents(context)
        self.workers = LocalWorkers(context)
        self.rollouts = LocalRollouts(context)
        self.policies = LocalPolicies(context)
        self.jobs = LocalJobs(context)
        self.principals = LocalPrincipals(context)
        self.grants = LocalGrants(context)
        self.tokens = LocalTokens(context)
        self.audit = LocalAuditLog(context)
        self.quotas = LocalQuotas(context)
        self.publishers = LocalPublishers(context)
        self.sso = LocalSingleSignOn(context)
        self.webhooks = LocalWebhooks(context)

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
        """The same registry for another identity, optionally for one request; costs nothing, so a server
        creates one each time.
        """
        return LocalRegistry(self.context.on_behalf_of(identity, idempotency_key))

    def known_damage(self) -> DamageSummary:
        """The damage that `verify` found and that is not repaired yet; for users of the registry's folder."""
        with self.catalog.read() as tx:
            return damage.summarise_damage(tx)

    def close(self) -> None:
        self.context.close()

    def __repr__(self) -> str:
        folder = self.context.folder
        return f"LocalRegistry({shorten(str(folder)) if folder else 'in memory'!r})"
