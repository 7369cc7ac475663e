"""The kinds of repositories, in the order in which a name is looked up.

An adapter without a commit comes last: nothing was ever pushed to it, so a base of the same name, on this
server or on the Hub behind it, takes precedence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Depends

from adaptry_api.hub.adapters import adapter_even_empty, adapter_repository
from adaptry_api.hub.addresses import RepositoryId
from adaptry_api.hub.bases import base_repository
from adaptry_api.hub.merged import merged_even_empty, merged_repository
from adaptry_api.hub.repo_lookup import (
    CallersHubReader,
    Repository,
    RepositoryLookup,
    find_repository,
    refuse_other_case,
)
from adaptry_api.hub.upstream_repo import upstream_repository

REPOSITORY_LOOKUPS: tuple[RepositoryLookup, ...] = (
    adapter_repository,
    merged_repository,
    base_repository,
    refuse_other_case,
    upstream_repository,
    adapter_even_empty,
    merged_even_empty,
)


async def _find(reader: CallersHubReader, id: RepositoryId) -> Callable[[], Repository]:
    return partial(find_repository, reader, id, REPOSITORY_LOOKUPS)


FindRepository = Annotated[Callable[[], Repository], Depends(_find)]
"""Finds the repository that a URL names, in the thread that reads it. Raises `NotFound`."""
