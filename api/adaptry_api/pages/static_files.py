"""Files that pages load: our stylesheet and scripts, and vendored ones, each at an address with its hash.

The address changes with the content, so browsers may keep a file permanently. `vendored/SOURCES.json` records
the origin, version, licence and SHA-256 of each vendored file.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from adaptry.core.errors import NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry_api.auth_policy import PUBLIC
from adaptry_api.pages.page_routes import page_router

ROUTES = page_router()
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FOLDERS = ("static", "vendored")
_IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file, its content type, and the first 16 hex digits of its SHA-256."""

    content: bytes
    compressed: bytes
    kind: str
    tag: str


@cache
def static_files() -> dict[str, StaticFile]:
    """Every file that pages may load, by name."""
    found = {}
    for folder in _FOLDERS:
        for path in files("adaptry_api.pages").joinpath(folder).iterdir():
            kind = _TYPES.get(path.name.rpartition(".")[2])
            if kind:
                content = path.read_bytes()
                tag = hashlib.sha256(content).hexdigest()[:16]
                found[path.name] = StaticFile(content, gzip.compress(content, 6, mtime=0), kind, tag)
    return found


def static_url(name: str) -> str:
    """The address of a file."""
    return f"/-/static/{static_files()[name].tag}/{name}"


@ROUTES.get("/-/static/{tag}/{file}", dependencies=[PUBLIC])
async def get_static_file(request: Request, tag: str, file: str) -> Response:
    """A static file of the pages, which is the same for all callers."""
    found = static_files().get(file)
    if found is None or found.tag != tag:
        raise NotFound("the pages have no such file; reload the page")
    headers = {"Cache-Control": _IMMUTABLE}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(found.compressed, headers=headers, media_type=found.kind)
    return Response(found.content, headers=headers, media_type=found.kind)
