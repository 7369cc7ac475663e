"""`Registry`: twelve roles, each a small interface; a function asks for the role that it needs.

`LocalRegistry` (a catalog and blobs) and `HttpRegistry` (a server) are the two implementations; they pass the
same contract suite, errors included. All methods of all roles raise `Unavailable` when the store or server
cannot answer. Pages hold at most `limit` (1 to 200) items.
"""

from __future__ import annotations

from abc import ABC

from adaptry.registry.adapters import Adapters
from adaptry.registry.aliases import Aliases
from adaptry.registry.bases import Bases
from adaptry.registry.commits import Commits
from adaptry.registry.events import Events
from adaptry.registry.files import Files
from adaptry.registry.jobs import Jobs
from adaptry.registry.metrics import Metrics
from adaptry.registry.rollouts import Rollouts
from adaptry.registry.uploads import Uploads
from adaptry.registry.versions import Versions
from adaptry.registry.workers import Workers


class Registry(ABC):
    """Versioned adapters, the bases they fit, and who serves them."""

    adapters: Adapters
    files: Files
    uploads: Uploads
    versions: Versions
    aliases: Aliases
    metrics: Metrics
    bases: Bases
    commits: Commits
    events: Events
    workers: Workers
    rollouts: Rollouts
    jobs: Jobs

    @property
    def is_on_this_machine(self) -> bool:
        """Whether bytes on their way to it stay on this machine. Then looking at them before sending saves
        nothing.
        """
        return True

    def close(self) -> None:  # noqa: B027  (nothing to let go of is an answer)
        """Lets go of files and connections; a registry that is not closed does so when it is collected."""
