"""`Registry`: twenty-three roles, each a small interface; a function asks for the role that it needs.

`LocalRegistry` (a catalog and blobs) and `HttpRegistry` (a server) are the two implementations; they pass the
same contract suite, errors included. All methods of all roles raise `Unavailable` when the store or server
cannot answer. Pages hold at most `limit` (1 to 200) items.
"""

from __future__ import annotations

from abc import ABC
from types import TracebackType
from typing import TYPE_CHECKING, Self

from adaptry.core.refs import Ref

if TYPE_CHECKING:  # a command imports the roles that it uses
    from adaptry.registry.adapters import Adapters
    from adaptry.registry.aliases import Aliases
    from adaptry.registry.audit_log import AuditLog
    from adaptry.registry.bases import Bases
    from adaptry.registry.commits import Commits
    from adaptry.registry.events import Events
    from adaptry.registry.evidence import Evidence
    from adaptry.registry.files import Files
    from adaptry.registry.grants import Grants
    from adaptry.registry.inbox import Inbox
    from adaptry.registry.jobs import Jobs
    from adaptry.registry.metrics import Metrics
    from adaptry.registry.policies import Policies
    from adaptry.registry.principals import Principals
    from adaptry.registry.publishers import Publishers
    from adaptry.registry.quick_values import ListedPage, VersionToPull
    from adaptry.registry.quotas import Quotas
    from adaptry.registry.records import VersionInfo
    from adaptry.registry.rollouts import Rollouts
    from adaptry.registry.sso import SingleSignOn
    from adaptry.registry.tokens import Tokens
    from adaptry.registry.uploads import Uploads
    from adaptry.registry.versions import Versions
    from adaptry.registry.webhooks import Webhooks
    from adaptry.registry.workers import Workers


class Registry(ABC):
    """Versioned adapters, their bases, and the workers that serve them; as a context manager, it closes."""

    adapters: Adapters
    files: Files
    uploads: Uploads
    versions: Versions
    aliases: Aliases
    metrics: Metrics
    evidence: Evidence
    inbox: Inbox
    bases: Bases
    commits: Commits
    events: Events
    workers: Workers
    rollouts: Rollouts
    policies: Policies
    jobs: Jobs
    principals: Principals
    grants: Grants
    tokens: Tokens
    quotas: Quotas
    publishers: Publishers
    sso: SingleSignOn
    audit: AuditLog
    webhooks: Webhooks

    @property
    def is_on_this_machine(self) -> bool:
        """Whether the registry is on this machine, so that checking bytes before sending them saves
        nothing.
        """
        return True

    def try_find(self, ref: Ref) -> VersionToPull | None:
        """The version that `ref` selects, if the registry has a fast path and there is nothing to warn about;
        otherwise None: use `versions`.
        """
        return None

    def try_list(self, namespace: str | None, cursor: str | None, limit: int) -> ListedPage | None:
        """A page of adapters by name, if the registry has a fast path; otherwise None: use `adapters`."""
        return None

    def version(self, ref: Ref | str) -> VersionInfo:
        """The version that `ref` selects now, as in `"acme/tone@prod"`. Raises `InvalidRef`, `NotFound`, or
        `Conflict` for an ambiguous digest prefix.
        """
        return self.versions.get(Ref.parse(ref) if isinstance(ref, str) else ref)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:  # noqa: B027  (most implementations have nothing to close)
        """Closes files and connections; otherwise garbage collection does."""
