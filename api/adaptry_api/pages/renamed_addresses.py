"""Addresses of pages after a rename: an adapter's former name, in the path or a ref, becomes the new one."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlencode

from starlette.requests import Request

from adaptry.core.errors import InvalidRef
from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.interface import Registry

_OF_ADAPTER = ("namespace", "name")


def address_after_renames(request: Request, registry: Registry) -> str | None:
    """The page's address with the new names, for a visitor who may see the adapters. None if no adapter in it
    has a former name.
    """

    def new_name(name: AdapterName) -> AdapterName | None:
        return registry.adapters.renamed_to(name)

    path = _path(request, new_name)
    query = [
        (key, _ref(value, new_name) if key == "ref" else value)
        for key, value in request.query_params.multi_items()
    ]
    if path == request.scope["path"] and query == request.query_params.multi_items():
        return None
    return quote(path) + (f"?{urlencode(query)}" if query else "")


def _path(request: Request, new_name: Callable[[AdapterName], AdapterName | None]) -> str:
    path, parts = str(request.scope["path"]), dict(request.path_params)
    if not all(one in parts for one in _OF_ADAPTER):
        return path
    try:
        renamed = new_name(AdapterName.parse("/".join(parts[one] for one in _OF_ADAPTER)))
    except InvalidRef:
        return path
    if renamed is None:
        return path
    parts.update(namespace=renamed.namespace, name=renamed.name)
    return str(request.scope["route"].path_format.format(**parts))


def _ref(text: str, new_name: Callable[[AdapterName], AdapterName | None]) -> str:
    try:
        ref = Ref.parse(text.strip())
    except InvalidRef:
        return text
    renamed = new_name(ref.name)
    return str(Ref(renamed, ref.selector)) if renamed else text
