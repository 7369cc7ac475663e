"""`HttpRegistry`: every method of every role of a registry as one call of the REST API."""

from __future__ import annotations

from urllib.parse import urlsplit

from pydantic import BaseModel, TypeAdapter

from adaptry.core.errors import Invalid
from adaptry.core.http import check_url, close_idle, open_pool
from adaptry.registry.access import CreatedToken
from adaptry.registry.http.adapters import HttpAdapters
from adaptry.registry.http.aliases import HttpAliases
from adaptry.registry.http.audit_log import HttpAuditLog
from adaptry.registry.http.bases import HttpBases
from adaptry.registry.http.commits import HttpCommits
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.events import HttpEvents
from adaptry.registry.http.evidence import HttpEvidence
from adaptry.registry.http.files import HttpFiles
from adaptry.registry.http.grants import HttpGrants
from adaptry.registry.http.inbox import HttpInbox
from adaptry.registry.http.jobs import HttpJobs
from adaptry.registry.http.metrics import HttpMetrics
from adaptry.registry.http.policies import HttpPolicies
from adaptry.registry.http.presigned import DirectUploader
from adaptry.registry.http.principals import HttpPrincipals
from adaptry.registry.http.publishers import HttpPublishers
from adaptry.registry.http.quotas import HttpQuotas
from adaptry.registry.http.rollouts import HttpRollouts
from adaptry.registry.http.sso import HttpSingleSignOn
from adaptry.registry.http.tokens import HttpTokens
from adaptry.registry.http.uploads import HttpUploads
from adaptry.registry.http.versions import HttpVersions
from adaptry.registry.http.webhooks import HttpWebhooks
from adaptry.registry.http.workers import HttpWorkers
from adaptry.registry.interface import Registry


class ServerInfo(BaseModel):
    """The server's versions, and the caller's identity there."""

    version: str
    api: int
    manifest_schema: int
    identity: str
    role: str
    namespaces: tuple[str, ...] = ()


_SERVER_INFO = TypeAdapter(ServerInfo)
_CREATED_TOKEN = TypeAdapter(CreatedToken)


class HttpRegistry(Registry):
    """The registry of the server at `url`. One may be used by many threads.

    `ca_bundle` is a file or folder of certificates to trust in addition to the system's. `proxy` is a URL; by
    default HTTPS_PROXY, HTTP_PROXY and NO_PROXY apply. Raises `Invalid` for a malformed URL or token.
    """

    def __init__(
        self, url: str, token: str | None = None, ca_bundle: str | None = None, proxy: str | None = None
    ) -> None:
        self.url: str = check_url(url)
        if token is not None and not (token.isascii() and token.isprintable()):
            raise Invalid(
                "the token for the registry has invalid characters; was something else copied with it?"
            )
        self._server = Connection(self.url, token, open_pool(self.url, ca_bundle, proxy))
        self.adapters = HttpAdapters(self._server)
        self.files = HttpFiles(self._server)
        self.uploads = HttpUploads(self._server, DirectUploader(self._server))
        self.versions = HttpVersions(self._server)
        self.aliases = HttpAliases(self._server)
        self.metrics = HttpMetrics(self._server)
        self.evidence = HttpEvidence(self._server)
        self.inbox = HttpInbox(self._server)
        self.bases = HttpBases(self._server)
        self.commits = HttpCommits(self._server)
        self.events = HttpEvents(self._server)
        self.workers = HttpWorkers(self._server)
        self.rollouts = HttpRollouts(self._server)
        self.policies = HttpPolicies(self._server)
        self.jobs = HttpJobs(self._server)
        self.principals = HttpPrincipals(self._server)
        self.grants = HttpGrants(self._server)
        self.tokens = HttpTokens(self._server)
        self.quotas = HttpQuotas(self._server)
        self.publishers = HttpPublishers(self._server)
        self.sso = HttpSingleSignOn(self._server)
        self.audit = HttpAuditLog(self._server)
        self.webhooks = HttpWebhooks(self._server)

    @property
    def is_on_this_machine(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or host == "::1" or host.startswith("127.")

    def close(self) -> None:
        """Closes idle connections; the next call opens new ones."""
        close_idle(self._server.pool)

    def __repr__(self) -> str:
        return f"HttpRegistry({self.url!r})"

    def about(self) -> ServerInfo:
        """The server's versions and our identity there. Raises `Unauthenticated`, `ProtocolMismatch`."""
        return self._server.request_value(_SERVER_INFO, "GET", api_path())

    def accept_invitation(self, code: str) -> CreatedToken:
        """Exchanges an invitation's code for a token; takes no token. Raises `Unauthenticated`."""
        path = api_path("invitations", "accept")
        return self._server.request_value(_CREATED_TOKEN, "POST", path, body={"code": code})
