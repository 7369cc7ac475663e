"""The kinds of repositories, in the order in which a name is looked for among them.

An adapter without a commit comes last: it was created and nothing was ever pushed to it, so a base of its name, here or on
the Hub behind this server, is what a reader means.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import Depends

from adaptry_api.hub.adapters import adapter_repository, any_adapter
from adaptry_api.hub.addresses import RepositoryId
from adaptry_api.hub.bases import stored_base
from adaptry_api.hub.merged import any_merged, merged_model
from adaptry_api.hub.repo_lookup import CallersReader, Kind, Repository, find, spelled_otherwise
from adaptry_api.hub.upstream_repo import passed_on

KINDS: tuple[Kind, ...] = (
    adapter_repository,
    merged_model,
    stored_base,
    spelled_otherwise,
    passed_on,
    any_adapter,
    any_merged,
)


async def _find(reader: CallersReader, id: RepositoryId) -> Callable[[], Repository]:
    return partial(find, reader, id, KINDS)


Find = Annotated[Callable[[], Repository], Depends(_find)]
"""Looks for the repository that an address names, in the thread that looks into it then. Raises `NotFound`."""
