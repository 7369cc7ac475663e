"""What a settings page is about: the whole registry, a namespace, or an adapter; and the person who looks."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from starlette.requests import Request

from adaptry.core.errors import InvalidRef, NotFound
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName
from adaptry.registry.interface import Registry

SETTINGS = "/-/settings"
OF_NAMESPACE = f"{SETTINGS}/namespaces/{{namespace}}"
OF_ADAPTER = f"{SETTINGS}/adapters/{{namespace}}/{{name}}"


@dataclass(frozen=True, slots=True)
class SettingsSubject:
    """The subject of a settings page: a namespace or an adapter in it; without a namespace, the registry."""

    namespace: str = ""
    adapter: AdapterName | None = None

    @classmethod
    def of(cls, request: Request) -> SettingsSubject:
        """The subject that the address names. Raises `NotFound` for a malformed name."""
        namespace, name = (request.path_params.get(key, "") for key in ("namespace", "name"))
        if not namespace:
            return cls()
        try:
            parsed = AdapterName.parse(f"{namespace}/{name or 'x'}")
        except InvalidRef as error:
            raise NotFound(error.message) from None
        return cls(namespace, parsed if name else None)

    @property
    def scope(self) -> str:
        """The scope, as policies name it."""
        return str(self.adapter) if self.adapter else self.namespace

    @property
    def address(self) -> str:
        if self.adapter:
            return f"{SETTINGS}/adapters/{quote(str(self.adapter))}"
        return f"{SETTINGS}/namespaces/{quote(self.namespace)}" if self.namespace else SETTINGS


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a section: the registry with the visitor's rights, the place, and the address's query."""

    registry: Registry
    identity: Identity
    place: SettingsSubject
    query: Mapping[str, str]
    numbers: Mapping[str, str]
    """Parameters of the path beyond the place, such as a webhook's id."""

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page of the list."""
        return self.query.get("cursor") or None

    def number(self, name: str) -> int:
        """The parameter as a number. Raises `NotFound` if it is not one."""
        return whole_number(self.numbers.get(name, ""))


def whole_number(text: str) -> int:
    """The text as an id. Raises `NotFound` if it is not a number."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotFound("there is no such entry; it may have been removed since: reload the page")
    return int(text)
