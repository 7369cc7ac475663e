"""Parameters of paths and queries, parsed on arrival: names, refs, digests, pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query

from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref, parse_selector


async def _name(namespace: str, name: str) -> AdapterName:
    return AdapterName.parse(f"{namespace}/{name}")


Name = Annotated[AdapterName, Depends(_name)]


async def _ref(name: Name, selector: str) -> Ref:
    return Ref(name, parse_selector(selector))


async def _revision(revision: str) -> Digest:
    return Digest.parse(revision)


async def _base(base: str) -> Digest:
    return Digest.parse(base)


async def _blob(digest: str) -> Digest:
    return Digest.parse(digest)


async def _architecture(
    digest: Annotated[str, Path(description="The digest of an architecture, from a base's record.")],
) -> Digest:
    return Digest.parse(digest)


PathRef = Annotated[Ref, Depends(_ref)]
Revision = Annotated[Digest, Depends(_revision)]
BaseId = Annotated[Digest, Depends(_base)]
Blob = Annotated[Digest, Depends(_blob)]
Architecture = Annotated[Digest, Depends(_architecture)]

Cursor = Annotated[str | None, Query(max_length=1024, description="The `next` of the previous page.")]
Limit = Annotated[int, Query(json_schema_extra={"minimum": 1, "maximum": 200})]
"""The limits are described here and enforced by the registry, so that its error message is the same
everywhere.
"""

Reverse = Annotated[bool, Query(description="Reverse the order.")]
