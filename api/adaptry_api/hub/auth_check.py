"""`GET …/auth-check`: whether the caller may read a repository, or write to it."""

from __future__ import annotations

from typing import Any

from adaptry_api.auth_policy import Caller, CallersRegistry
from adaptry_api.hub.addresses import MODELS, Name
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_types import FindRepository
from adaptry_api.hub.uploads import require_writer

ROUTES = hub_router()


@ROUTES.get(f"{MODELS}/auth-check")
def may_read(find: FindRepository) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    find()
    return {}


@ROUTES.get(f"{MODELS}/auth-check/write")
def may_write(name: Name, identity: Caller, registry: CallersRegistry) -> dict[str, Any]:
    """(`Any`: JSON.)"""
    require_writer(registry, identity, name)
    return {}
