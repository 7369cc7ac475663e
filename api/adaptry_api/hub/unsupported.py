"""Addresses of the Hub protocol that this server does not serve: clients get a sentence, and no misleading
error code.

`RepoNotFound` is used only for repositories, since clients report it as a mistyped name. For an address
without a route, a 404 without a code makes every client stop and print the sentence. Datasets and spaces are
repositories too, and downloads show the sentence only of this error, so a request for one by name gets
`RepoNotFound`.
"""

from __future__ import annotations

import re

from fastapi import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from adaptry_api import errors
from adaptry_api.header_text import header_text

_KINDS = {
    "datasets": "datasets",
    "spaces": "spaces",
    "kernels": "kernels",
    "buckets": "buckets",
}
_REPOSITORY = re.compile(r"(?:/api)?/(datasets|spaces|kernels|buckets)/[^/]+(?:/.*)?")
_OTHER = {
    "collections": "collections",
    "daily_papers": "papers",
    "papers": "papers",
    "jobs": "jobs of the Hub",
    "scheduled-jobs": "jobs of the Hub",
    "posts": "posts",
    "notifications": "notifications",
    "inference-proxy": "inference",
    "tasks": "tasks",
}
_ALTERNATIVES = (
    (
        re.compile(r"/api/models/([^/]+/[^/]+)/duplicate"),
        "This registry does not duplicate repositories. Copy the newest version to another name with"
        " `adaptry copy {name} NAMESPACE/NAME`, or another version with"
        " `adaptry copy {name}@NUMBER NAMESPACE/NAME`.",
    ),
    (
        re.compile(r"/api/models/([^/]+/[^/]+)/discussions/.+"),
        "This registry has no discussions and no pull requests: describe the adapter in its README, and"
        " commit proposals to a branch (create_branch, then revision=BRANCH).",
    ),
    (
        re.compile(r"/api/models/([^/]+/[^/]+)/(?:user-access-request/.+|ask-access)"),
        "Adapters cannot be gated, so there are no access requests for {name}. An administrator gives a user"
        " the right to read it with `adaptry grant add USER viewer {name}`.",
    ),
    (
        re.compile(r"/api/settings/webhooks(?:/.*)?()"),
        "This registry has its own webhooks: `adaptry webhook add NAMESPACE URL` and `adaptry webhook ls`.",
    ),
)
"""Requests for which the registry has something else: the path, with the adapter's name, and the answer."""
_MAX_LENGTH = 120
_GIT = "/info/refs"
_NO_GIT = (
    "Adaptry is not a git server: it has no clone, fetch or push of git."
    " Download with `hf download {name}` or `adaptry pull {name}`, and upload with `hf upload {name} FOLDER`"
    " or `adaptry push FOLDER {name}`."
)


def unsupported_response(request: Request, status: int) -> Response:
    """The answer for an address or method without a route."""
    path = str(request.scope["path"])
    for pattern, text in _ALTERNATIVES:
        if found := pattern.fullmatch(path):
            return _refusal(request, 501, text.format(name=header_text(found[1], _MAX_LENGTH)), {})
    if path.endswith(_GIT) and request.query_params.get("service", "").startswith("git-"):
        return _no_git(request, path.removesuffix(_GIT))
    headers: dict[str, str] = {}
    if repository := _REPOSITORY.fullmatch(path):
        what = f"There are no {_KINDS[repository[1]]} on this server"
        headers["X-Error-Code"] = "RepoNotFound"
        status = 404
    elif (kind := _kind(path)) in _KINDS | _OTHER:
        what = f"There are no {(_KINDS | _OTHER)[kind]} on this server"
    else:
        what = f"This server does not answer {request.method} {header_text(path, _MAX_LENGTH)}"
    text = (
        f"{what}: it stores adapters and their base models, and supports that part of the Hub's protocol. For"
        " anything else, use the Hub itself (unset HF_ENDPOINT)."
    )
    return _refusal(request, status, text, headers)


def _refusal(request: Request, status: int, text: str, headers: dict[str, str]) -> Response:
    headers["X-Error-Message"] = header_text(text, 1000)
    headers["X-Request-Id"] = errors.request_id(request)
    return JSONResponse({"error": text}, status, headers)


def _no_git(request: Request, path: str) -> Response:
    """Git reports a 404 as a missing repository; of other answers it shows only plain text."""
    name = header_text(path.strip("/").removesuffix(".git"), _MAX_LENGTH)
    return PlainTextResponse(
        _NO_GIT.format(name=name) + "\n", 501, {"X-Request-Id": errors.request_id(request)}
    )


def _kind(path: str) -> str:
    parts = path.strip("/").split("/")
    return parts[1] if parts[0] == "api" and len(parts) > 1 else ""
