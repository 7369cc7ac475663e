"""`HttpRegistry`: every method of every role of a registry as one call of the REST API."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter

from adaptry.core.errors import Invalid
from adaptry.core.http import check_url, open_pool
from adaptry.registry.http.adapters import HttpAdapters
from adaptry.registry.http.aliases import HttpAliases
from adaptry.registry.http.bases import HttpBases
from adaptry.registry.http.commits import HttpCommits
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.events import HttpEvents
from adaptry.registry.http.files import HttpFiles
from adaptry.registry.http.jobs import HttpJobs
from adaptry.registry.http.metrics import HttpMetrics
from adaptry.registry.http.presigned import DirectUploader
from adaptry.registry.http.rollouts import HttpRollouts
from adaptry.registry.http.uploads import HttpUploads
from adaptry.registry.http.versions import HttpVersions
from adaptry.registry.http.workers import HttpWorkers
from adaptry.registry.interface import Registry


class ServerInfo(BaseModel):
    """What a server says of itself, and whom it takes us for."""

    version: str
    api: int
    manifest_schema: int
    identity: str
    role: str
    namespaces: tuple[str, ...] = ()


_SERVER_INFO = TypeAdapter(ServerInfo)


class HttpRegistry(Registry):
    """The registry of the server at `url`. One may be used by many threads.

    `ca_bundle` is a file or folder of certificates to trust besides the system's; `proxy` an address, else
    HTTPS_PROXY, HTTP_PROXY and NO_PROXY decide. Raises `Invalid` for an address or a token that is none.
    """

    def __init__(
        self, url: str, token: str | None = None, ca_bundle: str | None = None, proxy: str | None = None
    ) -> None:
        self.url = check_url(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Invalid("the token has characters that no token has; was something else copied with it?")
        self._server = Connection(self.url, token, open_pool(self.url, ca_bundle, proxy))
        self.adapters = HttpAdapters(self._server)
        self.files = HttpFiles(self._server)
        self.uploads = HttpUploads(self._server, DirectUploader(self._server))
        self.versions = HttpVersions(self._server)
        self.aliases = HttpAliases(self._server)
        self.metrics = HttpMetrics(self._server)
        self.bases = HttpBases(self._server)
        self.commits = HttpCommits(self._server)
        self.events = HttpEvents(self._server)
        self.workers = HttpWorkers(self._server)
        self.rollouts = HttpRollouts(self._server)
        self.jobs = HttpJobs(self._server)

    @property
    def is_on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")

    def close(self) -> None:
        """Lets go of the connections that were kept; the next call makes new ones."""
        self._server.pool.clear()

    def __repr__(self) -> str:
        return f"HttpRegistry({self.url!r})"

    def about(self) -> ServerInfo:
        """The server's versions and our identity there. Raises `Unauthenticated`, `ProtocolMismatch`."""
        return self._server.request_value(_SERVER_INFO, "GET", api_path())
