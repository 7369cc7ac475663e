"""What one server process holds open: the catalog, the blobs, and who its callers are."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import anyio

from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.refs import AdapterName
from adaptry.core.settings import data_folder
from adaptry.operations.mirroring.apply import MIRRORED
from adaptry.operations.mirroring.upstream import UpstreamMirror
from adaptry.registry.http import HttpRegistry
from adaptry.registry.interface import Registry
from adaptry.storage import tokens
from adaptry.storage.blobs.local import LocalBlobs
from adaptry.storage.blobs.tiered import TieredBlobs
from adaptry.storage.catalog.adapters import is_own
from adaptry.storage.catalog.shared_names import is_used
from adaptry.storage.connect import open_local
from adaptry.storage.local.idempotency import IdempotencyKey
from adaptry.storage.local.stale_uploads import purge
from adaptry.storage.pull_through import PullThroughRegistry
from adaptry_api.auth import TokenAuthenticator
from adaptry_api.bodies import ParseSlots
from adaptry_api.draining import DrainState
from adaptry_api.event_stream import EventBroadcaster
from adaptry_api.grants import GrantSigner, read_signing_secret
from adaptry_api.hub.merged_source import MergedModelSource
from adaptry_api.hub.upload_spool import UploadSpools
from adaptry_api.hub.upstream import UpstreamHub
from adaptry_api.hub.xet.chunk_maps import ChunkMaps
from adaptry_api.settings import ServerSettings
from adaptry_api.upload_slots import UploadSlots

_MIRROR = Identity("mirror", "admin", ("*",))
"""The identity that stores what is fetched from the mirrored registry."""
_READERS = 16
_AWAITED = 64


class AppState:
    """The registry in `settings.data`; `registry(identity)` acts on it for a caller, perhaps per request."""

    def __init__(self, settings: ServerSettings) -> None:
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
        self.catalog = self._registry.catalog
        if settings.mirror_of is not None:
            self._registry = PullThroughRegistry(
                self._registry.context, self._origin(settings, settings.mirror_of)
            )
        self.authenticator = TokenAuthenticator(
            lambda secret: tokens.identify(self.catalog, secret), anonymous_read=settings.anonymous_read
        )
        self.draining = DrainState()
        self.event_broadcaster = EventBroadcaster(self.catalog, self.draining)
        self.draining.on_begin(self.event_broadcaster.wake)
        self.heartbeat = settings.heartbeat
        # Bytes move in threads of their own, so that slow transfers keep no other request waiting. An upload
        # holds one from its first byte to its last, a download for a piece at a time.
        self.uploads = UploadSlots(settings.uploads)
        self.parse_slots = ParseSlots()
        self.downloads = anyio.CapacityLimiter(_READERS)
        self.remote_reads = anyio.CapacityLimiter(_AWAITED)  # bytes that are not on a disk here
        given = read_signing_secret(settings.signing_secret) if settings.signing_secret else None
        self.signer = GrantSigner(settings.data / "upload-secret", given)
        spools = settings.spools or settings.data / "spools"
        self.spools = UploadSpools(spools)
        self.chunk_maps = ChunkMaps(spools / ".chunks")  # beside what all servers of a registry share anyway
        self.part_bytes = settings.part_bytes
        blobs = self._registry.blobs
        assert isinstance(blobs, LocalBlobs | TieredBlobs), "what a registry in a folder has"
        self.blobs = blobs
        self.presigns_downloads = settings.presign_downloads
        places = (
            data_folder() / "cache"
        )  # where the command line on this machine records the folders of bases
        self.merged_models = MergedModelSource(
            settings.data / "merged", blobs.path_of, places, settings.merged_cache
        )
        self.upstream = self._upstream(settings)

    def registry(self, identity: Identity, idempotency_key: IdempotencyKey | None = None) -> Registry:
        return self._registry.on_behalf_of(identity, idempotency_key)

    def identity_of_token(self, token_sha256: str) -> Identity:
        """Whose token has that hash. Raises `Unauthenticated` once it is revoked or expired."""
        return tokens.identify_hash(self.catalog, token_sha256)

    def _upstream(self, settings: ServerSettings) -> UpstreamHub | None:
        if settings.upstream is None:
            return None

        def is_ours(namespace: str) -> bool:
            with self.catalog.read() as tx:
                return is_used(tx, namespace)

        folder = settings.data / "upstream"
        return UpstreamHub(
            settings.upstream, settings.upstream_token, folder, settings.upstream_cache, is_ours
        )

    def _origin(self, settings: ServerSettings, url: str) -> UpstreamMirror:
        def is_ours(name: AdapterName) -> bool:
            with self.catalog.read() as tx:
                return is_own(tx, name, MIRRORED)

        here = self._registry.on_behalf_of(_MIRROR)
        return UpstreamMirror(HttpRegistry(url, settings.mirror_token), here, is_ours, settings.mirror_age)

    def sweep_spools(self) -> None:
        self.spools.sweep(time.time())

    def sweep_uploads(self) -> None:
        """Drops uploads idle for a day, in the registry's folder or bucket, and unused chunk maps."""
        purge(self.catalog, self._registry.blobs, datetime.now(UTC))
        self.chunk_maps.sweep(time.time())

    def check(self) -> None:
        """Raises `Unavailable` where the catalog does not answer, or this machine has no room."""
        self.catalog.check()
        self._registry.blobs.require_room(1)

    def close(self) -> None:
        self.merged_models.close()
        if self.upstream:
            self.upstream.close()
        self._registry.close()
