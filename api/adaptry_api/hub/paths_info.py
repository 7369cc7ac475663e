"""`POST …/paths-info/{revision}`: the files at the paths in the request."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from fastapi import Request, Response
from starlette.responses import JSONResponse

from adaptry.core import strictjson
from adaptry.core.errors import Invalid, Unsupported
from adaptry.registry import protocol
from adaptry_api.auth_policy import app_state_of
from adaptry_api.bodies import ParseSlots, read_body, read_json
from adaptry_api.hub.addresses import MODELS, ONE_WORD, Revision
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.repo_types import FindRepository
from adaptry_api.hub.tree_entries import entries_at
from adaptry_api.route_threads import run_in_own_threads

ROUTES = hub_router()
_MAX_PATHS = 1000
_LIMITS = strictjson.JsonLimits(size=protocol.JSON_LIMIT)


async def paths_info(request: Request, find: FindRepository, revision: Revision) -> Response:
    """The files and folders at those paths in the body that exist."""
    data = await read_body(request, protocol.JSON_LIMIT)
    kind = request.headers.get("content-type", "")

    paths, is_expanded = await _parse_request(kind, data, app_state_of(request).parse_slots)

    def look_up() -> Response:
        return JSONResponse(entries_at(find().snapshot(revision), paths, is_expanded=is_expanded))

    return await run_in_own_threads("reads", look_up)


for _at in (MODELS, ONE_WORD):
    ROUTES.add_api_route(f"{_at}/paths-info/{{revision}}", paths_info, methods=["POST"])


async def _parse_request(kind: str, data: bytes, parse_slots: ParseSlots) -> tuple[list[str], bool]:
    """The paths, and whether details are wanted: Python sends a form, JavaScript JSON. Raises `Invalid`."""
    match kind.partition(";")[0].strip().lower():
        case "application/x-www-form-urlencoded":
            try:
                form = parse_qs(data.decode("utf-8"), max_num_fields=_MAX_PATHS + 1)
            except ValueError as error:
                raise Invalid(f"cannot read the form: {error}") from None
            paths: Any = form.get("paths", [])
            expand: Any = form.get("expand", ["false"])[0]
        case "application/json":
            body = await read_json(data, _LIMITS, parse_slots, lambda document: document)
            body = body if isinstance(body, dict) else {}
            paths, expand = body.get("paths", []), body.get("expand", False)
        case _:
            raise Unsupported("send the paths as a form or as JSON")
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise Invalid("`paths` must be a list of strings")
    if len(paths) > _MAX_PATHS:
        raise Invalid(f"{len(paths)} paths; the limit for one request is {_MAX_PATHS}")
    return paths, str(expand).lower() in ("true", "1")
