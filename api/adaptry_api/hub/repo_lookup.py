"""Finds the repository of a name: an adapter, a merged model, a stored base, or a repository of another Hub.

`find_repository` tries each kind in turn. The next kind is tried only if the name is unknown: a revision or
file that an adapter lacks is never looked up elsewhere.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, cast

from fastapi import Depends, Request

from adaptry.core.errors import NotFound
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.interface import Registry
from adaptry_api.auth_policy import Caller, app_state_of
from adaptry_api.hub.computed_cache import HubCaches
from adaptry_api.hub.merged_source import MergedModelSource
from adaptry_api.hub.name_case import NameCaseMismatch, canonical_id
from adaptry_api.hub.snapshots import Snapshot

if TYPE_CHECKING:
    from adaptry_api.hub.upstream import UpstreamHub


class Repository(ABC):
    """Something that has revisions; `id` is its name as people write it."""

    id: str

    @abstractmethod
    def snapshot(self, revision: str) -> Snapshot:
        """The files at a revision. Raises `RevisionNotFound`."""


@dataclass(frozen=True, slots=True)
class HubReader:
    """The caller, and the data needed to read a repository for it.

    `upstream` is the Hub behind this server, if there is one. `name_in_other_case` gives the name of a
    repository of this server that differs from the requested one only by case, or None.
    """

    identity: Identity
    registry: Registry
    caches: HubCaches
    merged_models: MergedModelSource
    upstream: UpstreamHub | None
    name_in_other_case: Callable[[str], str | None]


RepositoryLookup = Callable[[HubReader, str], Repository | None]
"""The repository of that name, or None if this kind has none that the reader may know of."""


def find_repository(reader: HubReader, id: str, kinds: tuple[RepositoryLookup, ...]) -> Repository:
    """Finds the repository of that name. Raises `NotFound`."""
    for kind in kinds:
        if (repository := kind(reader, id)) is not None:
            return repository
    raise NotFound(f"no adapter {id[:200]}, and no base of that name with stored weights")


def refuse_other_case(reader: HubReader, id: str) -> Repository | None:
    """Finds nothing, or raises `NameCaseMismatch`: a name on this server in a different case takes precedence
    over another Hub's.
    """
    if reader.name_in_other_case(id) is not None:
        raise NameCaseMismatch(f"there is no {id[:200]}, but a name that differs by case")
    return None


def hub_reader(request: Request, identity: Identity) -> HubReader:
    """The reader of repositories for an authenticated caller."""
    state = app_state_of(request)
    caches = cast(HubCaches, request.app.state.hub_caches)
    return HubReader(
        identity,
        state.registry(identity),
        caches,
        state.merged_models,
        state.upstream,
        partial(canonical_id, state, identity),
    )


async def _reader(request: Request, identity: Caller) -> HubReader:
    return hub_reader(request, identity)


CallersHubReader = Annotated[HubReader, Depends(_reader)]
