"""Requests of a program to OAuth's endpoints, with their answers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3

from adaptry.core.errors import Unavailable
from adaptry.core.http import open_pool

_SECONDS = 30


def post(
    url: str, body: Mapping[str, str], ca_bundle: str | None, proxy: str | None
) -> tuple[int, dict[str, Any]]:
    """Posts JSON. (`Any`: JSON.) Raises `Unavailable`."""
    return request("POST", url, {"Content-Type": "application/json"}, ca_bundle, proxy, body)


def error_of(status: int, answer: Mapping[str, Any]) -> str:
    """The sentence of a refusal, in OAuth's form or in ours."""
    return str(answer.get("error_description") or answer.get("detail") or f"status {status}")


def request(
    method: str,
    url: str,
    headers: Mapping[str, str],
    ca_bundle: str | None,
    proxy: str | None,
    body: Mapping[str, str] | None = None,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer. (`Any`: JSON.)"""
    try:
        with open_pool(url, ca_bundle, proxy) as pool:
            answer = pool.request(
                method,
                url,
                body=json.dumps(body).encode() if body else None,
                headers=dict(headers),
                timeout=_SECONDS,
                redirect=False,
            )
        found = json.loads(answer.data)
    except urllib3.exceptions.HTTPError as error:
        raise Unavailable(f"cannot reach {urlsplit(url).hostname}: {error}") from error
    except ValueError:
        return answer.status, {}
    return answer.status, found if isinstance(found, dict) else {}
