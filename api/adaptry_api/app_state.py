"""The open resources of one server process: the catalog, the blobs, and the identities of its callers."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING

import anyio

from adaptry.core.errors import AdaptryError, Conflict, CorruptData
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.outgoing_requests.addresses import Network, parse_network
from adaptry.core.outgoing_requests.connector import GuardedConnector
from adaptry.core.refs import AdapterName
from adaptry.core.settings import data_folder
from adaptry.registry.interface import Registry
from adaptry.storage import tokens
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog import index_updates, quotas
from adaptry.storage.catalog.adapters import is_own
from adaptry.storage.catalog.audit_log.log_key import KEY_FILE, LogKey
from adaptry.storage.catalog.audit_log.recorder import insert_entries
from adaptry.storage.catalog.audit_log.sequencer import Sequencer
from adaptry.storage.catalog.shared_names import is_used
from adaptry.storage.connect import open_local
from adaptry.storage.derivation_process import DerivationProcess
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.push_steps import finish_together
from adaptry.storage.local.stale_uploads import purge
from adaptry.storage.pull_through import PullThroughRegistry
from adaptry.storage.webhooks.delivery import webhook_connector
from adaptry.storage.webhooks.sender import sending_webhooks
from adaptry_api.address_limits import DEVICE_SIGN_INS, AddressLimit
from adaptry_api.answer_cache import AnswerCache
from adaptry_api.auth import TokenAuthenticator
from adaptry_api.batches import BatchThreads
from adaptry_api.bodies import ParseSlots
from adaptry_api.commit_watch import CommitWatch
from adaptry_api.denials import DenialRecorder
from adaptry_api.domain_metrics import DomainMetrics
from adaptry_api.download_counts import DownloadCounts
from adaptry_api.etags import TaggedAnswer
from adaptry_api.event_stream import EventBroadcaster
from adaptry_api.hub.merged_source import MergedModelSource
from adaptry_api.hub.upload_spool import UploadSpools
from adaptry_api.hub.xet.chunk_maps import ChunkMaps
from adaptry_api.hub.xet.early_join import EarlyJoins
from adaptry_api.oauth.issuer_keys import IssuerKeys
from adaptry_api.pages.facet_counts import FacetCounter
from adaptry_api.quick_reads import QuickReads
from adaptry_api.request_limits import RequestLimits
from adaptry_api.route_threads import RouteThreads
from adaptry_api.settings import ServerSettings
from adaptry_api.shutdown import DrainState
from adaptry_api.sign_in.confirmation import confirm_users
from adaptry_api.sign_in.provider import OpenIdProvider
from adaptry_api.signed_grants import GrantSigner, read_signing_secret
from adaptry_api.upload_slots import UploadSlots

if TYPE_CHECKING:
    from adaptry.operations.mirror.upstream import UpstreamMirror
    from adaptry_api.hub.upstream import UpstreamHub

_MIRROR = Identity.with_role("mirror", "admin", ("*",))
"""The identity that stores files fetched from the mirrored registry."""
LOG = logging.getLogger("adaptry.api")
_READERS = 16
_MAX_REMOTE_READS = 64
_KEPT_SEARCHES = 64  # of about 30 kB each
_PUSHES = 16  # maximum pushes in one transaction
_IDENTITIES = 256
"""Number of identities whose registry object is cached for their next request. The object has only the
identity."""


class AppState:
    """The registry in `settings.data`. `registry(identity)` acts on it for a caller; it is cheap enough to
    call per request.
    """

    def __init__(self, settings: ServerSettings) -> None:
        secret = read_signing_secret(settings.signing_secret) if settings.signing_secret else None
        networks = tuple(map(parse_network, settings.allow_outgoing))
        self.folder = settings.data
        self._open_registry(settings, secret)
        self._set_up_callers(settings)
        self._set_up_providers(settings, secret, networks)
        self._set_up_caches(settings)
        self._set_up_events(settings, networks)
        self._set_up_transfers(settings)
        self.upstream = self._upstream(settings)

    def _open_registry(self, settings: ServerSettings, secret: bytes | None) -> None:
        """Opens the registry, its audit log, and, for a mirror, the registry that it mirrors."""
        self._registry = open_local(
            settings.data,
            ANONYMOUS,
            require_known_base=settings.require_known_base,
            catalog=settings.catalog,
            blobs=settings.blobs,
            blob_cache=settings.blob_cache,
            presign_uploads=settings.presign_uploads,
            is_serving=True,
        )
        for role in Registry.__annotations__:
            getattr(self._registry, role)  # imported now, so that no request waits for the import
        self.catalog = self._registry.catalog
        context = self._registry.context
        context.derive_wide = DerivationProcess(
            settings.data, settings.catalog, settings.blobs, settings.blob_cache, settings.require_known_base
        ).derive
        self.catalog.completes_index_updates = False
        context.log_key, context.seals_audit_on_read = LogKey(settings.data / KEY_FILE, secret), False
        self._sequencer, self._has_warned = Sequencer(self.catalog, context.log_key), False
        self._has_uncounted = False
        blobs = self._registry.blobs
        assert isinstance(blobs, LocalBlobs | TieredBlobs), "the blob stores of a registry in a folder"
        self.blobs = blobs
        if settings.mirror_of is not None:
            origin = self._origin(settings, settings.mirror_of)
            self._registry = PullThroughRegistry(context, origin)
        self._registry_of = lru_cache(maxsize=_IDENTITIES)(self._registry.on_behalf_of)

    def _set_up_callers(self, settings: ServerSettings) -> None:
        """Sets up authentication, request limits, and the record of denials."""
        self.authenticator = TokenAuthenticator(
            lambda secret: tokens.identify(self.catalog, secret), anonymous_read=settings.anonymous_read
        )
        self._registry.context.note_token_use = self.authenticator.note_use
        self.has_host_list = bool(settings.hosts)
        self.denials = DenialRecorder()
        self._storing_denials = threading.Lock()
        self.request_limits = RequestLimits()
        self.read_request_limits()
        self.device_limit = AddressLimit(DEVICE_SIGN_INS)

    def _set_up_providers(
        self, settings: ServerSettings, secret: bytes | None, networks: tuple[Network, ...]
    ) -> None:
        """Sets up identity providers, the connections to them, and the key for signed grants."""
        self.connector = GuardedConnector(networks, ca_bundle=settings.ca_bundle)
        self.issuer_keys = IssuerKeys(self.connector)
        self.provider_calls = anyio.CapacityLimiter(8)  # a slow provider leaves threads for everything else
        self.signer = GrantSigner(settings.data / "upload-secret", secret)
        self.openid_provider: OpenIdProvider | None = None
        if settings.sso is not None:
            self.openid_provider = OpenIdProvider(
                settings.sso, self.connector, self.issuer_keys, lambda: self.signer.derived_key("refresh")
            )

    def _set_up_caches(self, settings: ServerSettings) -> None:
        """Sets up the caches of results that are computed from the catalog."""
        # A mirror may query the mirrored registry first, so its reads are never short.
        is_quick = self.catalog.has_prepared and settings.mirror_of is None
        is_local = self.catalog.is_local
        self.quick_reads = QuickReads("reads", is_available=is_quick, is_local=is_local, together=16)
        self.searching = QuickReads("searches", is_available=is_quick, is_local=is_local, together=1)
        self.commits = CommitWatch(self.catalog)
        self.answers: AnswerCache[TaggedAnswer] = AnswerCache(self.commits)
        self.searches: AnswerCache[bytes] = AnswerCache(self.commits, _KEPT_SEARCHES)
        self.facet_counter = FacetCounter()
        self.domain_metrics = DomainMetrics(self.catalog)

    def _set_up_events(self, settings: ServerSettings, networks: tuple[Network, ...]) -> None:
        """Sets up event streams, how they end when the server stops, and webhooks."""
        self.draining = DrainState()
        self.event_broadcaster = EventBroadcaster(self.catalog, self.draining)
        self.draining.on_begin(self.event_broadcaster.wake)
        self.heartbeat = settings.heartbeat
        self._sends_webhooks = settings.send_webhooks and settings.catalog is None
        self._webhook_connector = webhook_connector(networks, settings.ca_bundle)

    def _set_up_transfers(self, settings: ServerSettings) -> None:
        """Sets up uploads, downloads and merged models.

        Transfers have separate threads, so that slow ones do not delay other requests. An upload holds a
        thread from its first byte to its last; a download holds one for each chunk.
        """
        self.uploads = UploadSlots(settings.uploads)
        # Pushes into a bucket wait for another machine, so each has its own thread.
        is_local = self.catalog.writes_together and isinstance(self.blobs, LocalBlobs)
        self.has_short_pushes = self.quick_reads.is_available and is_local
        self.short_pushes = BatchThreads("pushes", finish_together, threads=2, together=_PUSHES)
        self.parse_slots = ParseSlots()
        self.route_threads = RouteThreads.of_process()
        self.downloads = anyio.CapacityLimiter(_READERS)
        self.download_counts = DownloadCounts()
        self.remote_reads = anyio.CapacityLimiter(_MAX_REMOTE_READS)  # bytes in a bucket or another registry
        self.whole_bytes = settings.whole_bytes
        self.part_bytes = settings.part_bytes
        self.presigns_downloads = settings.presign_downloads
        spools = settings.upload_spool or settings.data / "spools"
        self.spools = UploadSpools(spools)
        self.early_joins = EarlyJoins(self.blobs)
        self.chunk_maps = ChunkMaps(spools / ".chunks")  # shared by all servers of a registry, like spools
        base_folders = data_folder() / "cache"  # has the folders of bases that the command line recorded
        self.merged_models = MergedModelSource(
            settings.data / "merged", self.blobs.path_of, base_folders, settings.merged_cache
        )

    def registry(self, identity: Identity, idempotency_key: IdempotencyKey | None = None) -> Registry:
        if idempotency_key is None:
            return self._registry_of(identity)
        return self._registry.on_behalf_of(identity, idempotency_key)

    def identity_of_token(self, token_sha256: str) -> Identity:
        """The identity of the token with this hash. Raises `Unauthenticated` if it is revoked or expired."""
        return tokens.identify_hash(self.catalog, token_sha256)

    def store_token_uses(self) -> None:
        """Stores when tokens were last used. Times that are not stored yet are lost if the process dies."""
        if used := self.authenticator.take_uses():
            tokens.record_use(self.catalog, used)

    def store_downloads(self) -> None:
        """Stores the downloads counted since the last call."""
        try:
            self.download_counts.store(self.catalog)
        except AdaptryError as error:  # tried again, and logged once, until they can be stored
            if not self._has_uncounted:
                LOG.warning("downloads are not counted now: %s", error.message)
            self._has_uncounted = True
        else:
            self._has_uncounted = False

    def read_request_limits(self) -> None:
        """Reads the request limits of all names, every few seconds, since other servers may change them."""
        with self.catalog.read_prepared() as tx:
            self.request_limits.set_limits(quotas.every(tx))

    def confirm_users(self) -> None:
        """Asks the identity provider about users whom it has not confirmed for a while."""
        if self.openid_provider is not None and confirm_users(
            self.catalog, self.openid_provider, lambda: not self.draining.is_ready
        ):
            self.authenticator.clear_cache()

    def store_denials(self) -> None:
        """Stores the denied requests in the audit log. When this returns, they are stored, even if another
        thread took them first.
        """
        with self._storing_denials:
            if denied := self.denials.take():
                with self.catalog.write() as tx:
                    insert_entries(tx, denied)

    def seal_audit_log(self) -> None:
        """Seals the new entries of the audit log, unless another server of the registry does."""
        try:
            self._sequencer.run(datetime.now(UTC))
        except (Conflict, CorruptData) as error:  # logged once a second until it is fixed
            if not self._has_warned:
                LOG.error("%s", error.message)
            self._has_warned = True
        else:
            self._has_warned = False

    def complete_index_updates(self) -> None:
        """Updates the search index after edits of large adapters, until the server stops."""
        index_updates.complete(self.catalog, lambda: self.draining.is_ready)

    def sending_webhooks(self) -> AbstractContextManager[None]:
        """Sends to webhooks during the block, if the registry's rows and files are all in its folder. In an
        organisation's deployment, the runners send instead; they may be in a different network than the
        servers.
        """
        return (
            sending_webhooks(self.catalog, self._webhook_connector) if self._sends_webhooks else nullcontext()
        )

    def _upstream(self, settings: ServerSettings) -> UpstreamHub | None:
        if settings.upstream is None:
            return None

        def is_ours(namespace: str) -> bool:
            with self.catalog.read() as tx:
                return is_used(tx, namespace)

        from adaptry_api.hub.upstream import UpstreamHub

        folder = settings.data / "upstream"
        return UpstreamHub(
            settings.upstream, settings.upstream_token, folder, settings.upstream_cache, is_ours
        )

    def _origin(self, settings: ServerSettings, url: str) -> UpstreamMirror:
        from adaptry.operations.mirror.apply import MIRRORED
        from adaptry.operations.mirror.upstream import UpstreamMirror
        from adaptry.registry.http import HttpRegistry

        def is_ours(name: AdapterName) -> bool:
            with self.catalog.read() as tx:
                return is_own(tx, name, MIRRORED)

        here = self._registry.on_behalf_of(_MIRROR)
        return UpstreamMirror(HttpRegistry(url, settings.mirror_token), here, is_ours, settings.mirror_ttl)

    def sweep_spools(self) -> None:
        self.spools.sweep(time.time())

    def sweep_uploads(self) -> None:
        """Drops uploads idle for a day, in the registry's folder or bucket, and unused chunk maps."""
        purge(self.catalog, self._registry.blobs, datetime.now(UTC))
        self.chunk_maps.sweep(time.time())

    def check(self) -> None:
        """Raises `Unavailable` if the catalog does not answer or the disk is full."""
        self.catalog.check()
        self._registry.blobs.require_room(1)

    def close(self) -> None:
        self.early_joins.close()
        self.merged_models.close()
        if self.upstream:
            self.upstream.close()
        self.quick_reads.close()
        self.searching.close()
        self.short_pushes.close()
        self.commits.close()
        with suppress(AdaptryError):  # the server stops even if the catalog is not available
            self.store_downloads()
            self.store_denials()
            self.seal_audit_log()
        self._registry.close()
