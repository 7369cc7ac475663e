"""`LocalRegistry`: a class for each role of a registry, over the same catalog and blobs.

Every method checks the identity that it acts for, then the rules, then changes stored data: bytes first, then
rows with their event in one transaction. Safe to use from many threads, and at the same time as other
processes with the same folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING

from adaptry.core.display import shorten
from adaptry.core.identity import Identity
from adaptry.registry.interface import Registry
from adaptry.storage.blobs import BlobStore
from adaptry.storage.catalog import damage
from adaptry.storage.catalog.damage import DamageSummary
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.local.context import RegistryContext

if TYPE_CHECKING:
    from adaptry.storage.local.bases import LocalBases
    from adaptry.storage.local.idempotency import IdempotencyKey

_ROLES: Mapping[str, str] = {
    "adapters": "adapters.LocalAdapters",
    "files": "files.LocalFiles",
    "uploads": "uploads.LocalUploads",
    "versions": "versions.LocalVersions",
    "aliases": "aliases.LocalAliases",
    "metrics": "metrics.LocalMetrics",
    "evidence": "evidence.LocalEvidence",
    "inbox": "inbox.LocalInbox",
    "bases": "bases.LocalBases",
    "commits": "commits.LocalCommits",
    "events": "events.LocalEvents",
    "workers": "workers.LocalWorkers",
    "rollouts": "rollouts.LocalRollouts",
    "policies": "policies.LocalPolicies",
    "jobs": "jobs.LocalJobs",
    "principals": "principals.LocalPrincipals",
    "grants": "grants.LocalGrants",
    "tokens": "tokens.LocalTokens",
    "audit": "audit_log.LocalAuditLog",
    "quotas": "quota_settings.LocalQuotas",
    "publishers": "publishers.LocalPublishers",
    "sso": "sso.LocalSingleSignOn",
    "webhooks": "webhooks.LocalWebhooks",
}
"""The module and class of each role."""


class LocalRegistry(Registry):
    """`LocalRegistry(RegistryContext(catalog, blobs, identity))`; `open_local` opens one in a folder.

    A role is imported when it is first used: most commands need one or two of them, and importing all
    takes a third of a second.
    """

    bases: LocalBases

    def __init__(self, context: RegistryContext) -> None:
        self.context = context

    def __getattr__(self, name: str) -> object:
        """The role of that name, which is an attribute from then on."""
        if name not in _ROLES:
            raise AttributeError(f"a registry has no role {name!r}")
        module, _, kind = _ROLES[name].partition(".")
        role: object = getattr(import_module(f"adaptry.storage.local.{module}"), kind)(self.context)
        setattr(self, name, role)
        return role

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
        """The same registry for another identity, optionally for one request; this costs nothing, so a server
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
