"""The adapters role over HTTP."""

from __future__ import annotations

from pydantic import BaseModel, TypeAdapter

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.adapters import Adapters
from adaptry.registry.http.connection import Connection, api_path
from adaptry.registry.http.paths import idempotency_header, owner_path, sort_query
from adaptry.registry.records import AdapterEdit, AdapterInfo, Event, Page


class _RedirectResponse(BaseModel):
    to: AdapterName | None


_ADAPTER = TypeAdapter(AdapterInfo)
_ADAPTERS = TypeAdapter(Page[AdapterInfo])
_EVENTS = TypeAdapter(Page[Event])
_MOVED = TypeAdapter(_RedirectResponse)


@dataclass(frozen=True)
class HttpAdapters(Adapters):
    """The adapters of a server's registry."""

    server: Connection

    def create(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        body = {"name": str(name), **_changed_fields(edit)}
        return self.server.request_value(
            _ADAPTER, "POST", api_path("adapters"), body=body, headers=idempotency_header(), again=True
        )

    def get(self, name: AdapterName) -> AdapterInfo:
        return self.server.request_value(_ADAPTER, "GET", owner_path(name))

    def list(
        self,
        namespace: str | None = None,
        cursor: str | None = None,
        limit: int = 50,
        *,
        sort: str = "name",
        reverse: bool = False,
    ) -> Page[AdapterInfo]:
        query = {
            "namespace": namespace,
            "cursor": cursor,
            "limit": limit,
            **sort_query(None if sort == "name" else sort, reverse),
        }
        return self.server.request_value(_ADAPTERS, "GET", api_path("adapters"), query=query)

    def edit(self, name: AdapterName, edit: AdapterEdit) -> AdapterInfo:
        return self.server.request_value(
            _ADAPTER, "PATCH", owner_path(name), body=_changed_fields(edit), again=True
        )

    def rename(self, name: AdapterName, to: AdapterName) -> AdapterInfo:
        return self.server.request_value(_ADAPTER, "POST", owner_path(name, "rename"), body={"to": str(to)})

    def delete(self, name: AdapterName) -> None:
        self.server.request_bytes("DELETE", owner_path(name))

    def history(self, name: AdapterName, cursor: str | None = None, limit: int = 50) -> Page[Event]:
        query = {"cursor": cursor, "limit": limit}
        return self.server.request_value(_EVENTS, "GET", owner_path(name, "history"), query=query)

    def renamed_to(self, name: AdapterName) -> AdapterName | None:
        return self.server.request_value(_MOVED, "GET", owner_path(name, "moved")).to


def _changed_fields(edit: AdapterEdit) -> dict[str, object]:
    """The fields that are set; others stay unchanged on the server."""
    return edit.model_dump(mode="json", exclude_none=True)
