"""The kinds of repositories, in the order in which a name is looked for among them."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import Depends

from adaptry_api.hub.adapters import adapter_repository
from adaptry_api.hub.addresses import RepositoryId
from adaptry_api.hub.bases import stored_base
from adaptry_api.hub.merged import merged_model
from adaptry_api.hub.passed_on import passed_on
from adaptry_api.hub.repositories import CallersReader, Kind, Repository, find

KINDS: tuple[Kind, ...] = (adapter_repository, merged_model, stored_base, passed_on)


async def _repository(reader: CallersReader, id: RepositoryId) -> Repository:
    return await to_thread.run_sync(find, reader, id, KINDS)


Found = Annotated[Repository, Depends(_repository)]
"""The repository that an address names. Raises `NotFound`."""
