"""`GET …/xet-write-token/{revision}`: a token and an address for one upload through Xet."""

from __future__ import annotations

import secrets
import time
from typing import Annotated

from fastapi import Query, Request
from starlette.responses import JSONResponse, Response

from adaptry.core.refs import AdapterName
from adaptry_api.auth_policy import Caller, CallersRegistry, app_state_of
from adaptry_api.hub.addresses import MODELS, Name, origin, url_path_of
from adaptry_api.hub.refusals import hub_router
from adaptry_api.hub.uploads import require_writer, token_hash
from adaptry_api.hub.xet_upload import XetGrant, upload_id

ROUTES = hub_router()
TOKEN_SECONDS = 3600
_ACCESS_TOKEN, _EXPIRATION, _CAS_URL = "X-Xet-Access-Token", "X-Xet-Token-Expiration", "X-Xet-Cas-Url"


@ROUTES.get(f"{MODELS}/xet-write-token/{{revision:path}}")
def write_token(
    request: Request,
    name: Name,
    identity: Caller,
    registry: CallersRegistry,
    upload: Annotated[str, Query(pattern="^[0-9a-f]{32}$")] = "",
) -> Response:
    """A token and an address for one upload: a new one, or the one numbered `upload`. With the same `upload`,
    the token is also valid for earlier addresses.
    """
    require_writer(registry, identity, name)
    headers = _write_headers(request, name, upload or secrets.token_hex(16))
    body = {
        "accessToken": headers[_ACCESS_TOKEN],
        "exp": int(headers[_EXPIRATION]),
        "casUrl": headers[_CAS_URL],
    }
    return JSONResponse(body, headers=headers)


def xet_action(request: Request, name: AdapterName) -> dict[str, object]:
    """Directs a Git LFS batch to Xet: `header` has a token and an address, `href` the URL of a newer token
    for the same address. The calling code must have checked that the client may write.
    """
    number = secrets.token_hex(16)
    again = f"{origin(request)}/api/models/{url_path_of(str(name))}/xet-write-token/main?upload={number}"
    return {"href": again, "header": _write_headers(request, name, number)}


def _write_headers(request: Request, name: AdapterName, number: str) -> dict[str, str]:
    grant = XetGrant(name=name, by=token_hash(request), until=int(time.time()) + TOKEN_SECONDS)
    return {
        _ACCESS_TOKEN: app_state_of(request).signer.sign(grant),
        _EXPIRATION: str(grant.until),
        _CAS_URL: f"{origin(request)}/xet/{upload_id(request, number, grant)}",
    }
