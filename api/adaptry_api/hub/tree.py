"""The files of a revision: a folder of it, or those at some paths."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import parse_qs

from anyio import to_thread
from fastapi import Query, Request, Response
from starlette.responses import JSONResponse

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Unsupported
from adaptry.registry import protocol
from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import ParseSlots, read_body, read_json
from adaptry_api.hub.addresses import MODELS, ONE_WORD, Path, Revision, next_link
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_types import FindRepository
from adaptry_api.hub.tree_entries import entries_at, folder_entries

ROUTES = hub_router()
_PAGE = 1000
_MOST_PATHS = 1000
_LIMITS = strictjson.JsonLimits(size=protocol.JSON_LIMIT)

Cursor = Annotated[int, Query(ge=0, le=1_000_000)]


def tree(
    request: Request,
    find: FindRepository,
    revision: Revision,
    path: Path,
    recursive: bool = False,
    expand: bool = False,
    limit: Annotated[int, Query(ge=1, le=_PAGE)] = _PAGE,
    cursor: Cursor = 0,
) -> Response:
    """A page of a folder; `Link` has the next one."""
    snapshot = find().snapshot(revision)
    found = folder_entries(snapshot, path, is_recursive=recursive, is_expanded=expand)
    headers = next_link(request, str(cursor + limit)) if len(found) > cursor + limit else {}
    return JSONResponse(found[cursor : cursor + limit], headers=headers)


async def paths_info(request: Request, find: FindRepository, revision: Revision) -> Response:
    """Of the paths in the body, those that are there."""
    data = await read_body(request, protocol.JSON_LIMIT)
    kind = request.headers.get("content-type", "")

    paths, is_expanded = await _asked(kind, data, app_state_of(request).parse_slots)

    def look_up() -> Response:
        return JSONResponse(entries_at(find().snapshot(revision), paths, is_expanded=is_expanded))

    return await to_thread.run_sync(look_up)


for _at in (MODELS, ONE_WORD):
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/tree/{{revision}}/{{path:path}}", tree, methods=["GET"])
    ROUTES.add_api_route(f"{_at}/paths-info/{{revision}}", paths_info, methods=["POST"])


async def _asked(kind: str, data: bytes, parsing: ParseSlots) -> tuple[list[str], bool]:
    """The paths and whether more is wanted of each: a form from Python, JSON from JavaScript. Raises `Invalid`."""
    match kind.partition(";")[0].strip().lower():
        case "application/x-www-form-urlencoded":
            try:
                form = parse_qs(data.decode("utf-8"), max_num_fields=_MOST_PATHS + 1)
            except ValueError as error:
                raise Invalid(f"not a form of paths: {error}") from None
            paths: Any = form.get("paths", [])
            expand: Any = form.get("expand", ["false"])[0]
        case "application/json":
            body = await read_json(data, _LIMITS, parsing, lambda document: document)
            body = body if isinstance(body, dict) else {}
            paths, expand = body.get("paths", []), body.get("expand", False)
        case _:
            raise Unsupported("the paths come as a form or as JSON")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Invalid("`paths` is a list of texts")
    if len(paths) > _MOST_PATHS:
        raise Invalid(f"{len(paths)} paths; at most {_MOST_PATHS} are looked up at once")
    return paths, str(expand).lower() in ("true", "1")
