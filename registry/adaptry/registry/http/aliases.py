"""The aliases role over HTTP."""

from __future__ import annotations

from pydantic import TypeAdapter

from adaptry.core.digest import Digest
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, parse_stored_alias
from adaptry.registry.aliases import AS_POLICIES_SAY, Aliases, MoveRequest
from adaptry.registry.http.connection import Connection
from adaptry.registry.http.paths import owner_path
from adaptry.registry.records import AliasInfo

_ALIAS = TypeAdapter(AliasInfo)
_ALIASES: TypeAdapter[tuple[AliasInfo, ...]] = TypeAdapter(tuple[AliasInfo, ...])


@dataclass(frozen=True)
class HttpAliases(Aliases):
    """The aliases of a server's registry."""

    server: Connection

    def list(self, name: AdapterName) -> tuple[AliasInfo, ...]:
        return self.server.request_value(_ALIASES, "GET", owner_path(name, "aliases"))

    def get(self, name: AdapterName, alias: str) -> AliasInfo:
        return self.server.request_value(
            _ALIAS, "GET", owner_path(name, "aliases", parse_stored_alias(alias))
        )

    def move(
        self,
        name: AdapterName,
        alias: str,
        to: Digest,
        was: int | None,
        request: MoveRequest = AS_POLICIES_SAY,
    ) -> AliasInfo:
        seen = {"If-None-Match": "*"} if was is None else {"If-Match": f'"{was}"'}
        path = owner_path(name, "aliases", parse_stored_alias(alias))
        body = {"to": str(to), **request.model_dump(exclude_none=True)}
        return self.server.request_value(_ALIAS, "PUT", path, body=body, headers=seen, again=False)

    def remove(self, name: AdapterName, alias: str, was: int) -> None:
        path = owner_path(name, "aliases", parse_stored_alias(alias))
        self.server.request_bytes("DELETE", path, headers={"If-Match": f'"{was}"'})
