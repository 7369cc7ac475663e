"""Addresses of the pages about a version or an alias, as routes and as links."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends

from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry_api.hub.addresses import Name

VERSION_ADDRESS = "/-/adapters/{namespace}/{name}/{number}"
ALIAS_ADDRESS = "/-/aliases/{namespace}/{name}/{alias}"


def version_address(name: AdapterName, number: int) -> str:
    return f"/-/adapters/{name}/{number}"


def promotion_address(name: AdapterName, number: int, alias: str) -> str:
    """The page on which the alias is moved to the version."""
    return f"{version_address(name, number)}/promote?alias={quote(alias, safe='')}"


def alias_address(name: AdapterName, alias: str) -> str:
    return f"/-/aliases/{name}/{quote(alias, safe='')}"


async def _ref(name: Name, number: str) -> Ref:
    return Ref.parse(f"{name}@{number}")


async def _alias(alias: str) -> str:
    return parse_stored_alias(alias)


NumberedRef = Annotated[Ref, Depends(_ref)]
AliasName = Annotated[str, Depends(_alias)]
