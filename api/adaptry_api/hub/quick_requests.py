"""Which requests of the Hub protocol skip FastAPI: those that clients send for each repository and file.

Names with encoded characters, repositories with one-word names, and other queries are left to FastAPI.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container

from starlette.requests import Request

_REPOSITORY = "/api/models/[^/%]+/[^/%]+"
INFO = re.compile(f"{_REPOSITORY}(?:/revision/[^/%]+)?")
TREE = re.compile(f"{_REPOSITORY}/tree/[^/%]+(?:/[^%]+)?")
FILE = re.compile("/(?!api/)[^/%]+/[^/%]+/resolve/[^/%]+/[^%]+")
"""Forms of paths. A path of such a form matches no route that comes before its own."""


def plain(form: re.Pattern[str], queries: Container[bytes] = (b"",)) -> Callable[[Request], bool]:
    """A test of requests: whether the path has this form and the query is one of these."""

    def is_plain(request: Request) -> bool:
        scope = request.scope
        return scope["query_string"] in queries and form.fullmatch(scope["path"]) is not None

    return is_plain
