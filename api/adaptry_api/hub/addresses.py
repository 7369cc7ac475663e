"""URL paths as the Hub's clients write them, where `%2F` is part of a name and `/` is not.

A server decodes a path before routes are matched, and `refs%2Fpr%2F1` would become three parts. So, outside
our own interface, routes match the path as it was sent, and this module decodes each part once after the
match.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote, unquote, urlencode

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from adaptry.core.errors import Invalid, InvalidPath, InvalidRef
from adaptry.core.refs import AdapterName
from adaptry.core.tree_paths import check_path
from adaptry.registry import protocol
from adaptry.registry.commits import MAIN
from adaptry_api.errors import HttpProblem
from adaptry_api.hub.refusals import HubNotFound

MODELS = "/api/models/{namespace}/{name}"
ONE_WORD = "/api/models/{word}"
"""The path of a base with a one-word name, as the Hub's oldest models have."""


class RawPathRouting:
    """Routes paths outside our own prefix by their undecoded form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw: bytes | None = scope.get("raw_path")
        if scope["type"] == "http" and raw is not None and not raw.startswith(protocol.PREFIX.encode()):
            scope["path"] = raw.partition(b"?")[0].decode("latin-1")
        await self.app(scope, receive, send)


def repository_id(request: Request) -> str:
    """The repository that a URL names: `acme/tone`, or one word."""
    found = request.path_params
    if "word" in found:
        return unquote(found["word"])
    return f"{unquote(found['namespace'])}/{unquote(found['name'])}"


async def _repository(request: Request) -> str:
    return repository_id(request)


async def _name(repository: Annotated[str, Depends(_repository)]) -> AdapterName:
    return adapter_name(repository)


def revision_in(request: Request) -> str:
    """The revision that a URL names; `main` if it names none."""
    revision = unquote(request.path_params.get("revision", MAIN))
    return MAIN if revision == "HEAD" else revision


def path_in(request: Request) -> str:
    """The path inside the repository that a URL names."""
    return unquote(request.path_params.get("path", "")).strip("/")


async def _revision(request: Request) -> str:
    return revision_in(request)


async def _path(request: Request) -> str:
    return path_in(request)


RepositoryId = Annotated[str, Depends(_repository)]
"""`acme/tone`, or one word; the repository need not exist."""
Name = Annotated[AdapterName, Depends(_name)]
Revision = Annotated[str, Depends(_revision)]
"""The revision as written, except that `HEAD`, git's word for the default branch, is `main`."""
Path = Annotated[str, Depends(_path)]


def adapter_name(repository: str) -> AdapterName:
    """The adapter of that name. Raises `HubNotFound` for a name that no adapter can have."""
    try:
        return AdapterName.parse(repository)
    except InvalidRef as error:
        raise HubNotFound("RepoNotFound", error.message) from None


def stored_path(path: str) -> str:
    """A valid path of a file in a commit. Raises `HttpProblem` (422)."""
    try:
        return check_path(path)
    except InvalidPath as error:
        raise HttpProblem(422, error.message) from None


def origin(request: Request) -> str:
    """`http://host` as the client wrote it: clients refuse an answer with URLs of another host.

    Behind a configured proxy, host and scheme are the forwarded ones (`proxies`). Raises `Invalid`.
    """
    host = request.headers.get("host", "")
    scheme = str(request.scope["scheme"])
    if scheme not in ("http", "https") or not host or any(char in host for char in "/\\@ \t,?#\"'<>"):
        raise Invalid("the request has no valid Host header")
    return f"{scheme}://{host}"


def url_path_of(repository: str) -> str:
    """The part of a URL path that names a repository."""
    return quote(repository, safe="/")


def next_link(request: Request, cursor: str) -> dict[str, str]:
    """The `Link` header of the next page: this URL, with another `cursor`."""
    query = urlencode(
        [
            *((key, value) for key, value in request.query_params.multi_items() if key != "cursor"),
            ("cursor", cursor),
        ]
    )
    return {"Link": f'<{origin(request)}{request.scope["path"]}?{query}>; rel="next"'}
