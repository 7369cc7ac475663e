"""Signing in as a CI job: its ID token is exchanged for a token that pushes to one adapter.

The ID token is in ADAPTRY_ID_TOKEN (GitLab: `id_tokens`), or requested from GitHub Actions. HF_OIDC_ID_TOKEN,
which the Hub's client reads, is read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from adaptry.core.errors import Invalid, Unauthenticated, Unavailable
from adaptry_cli.oauth_client import error_of, post, request

_VARIABLES = ("ADAPTRY_ID_TOKEN", "HF_OIDC_ID_TOKEN")
_REQUEST_URL, _REQUEST_TOKEN = "ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"
_EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
}


def job_token(
    server: str, adapter: str, environ: Mapping[str, str], ca_bundle: str | None, proxy: str | None
) -> str:
    """A token for the job that this process is part of, valid for 15 minutes.

    Raises `Invalid` outside a job that may have an ID token, `Unauthenticated` if the server refuses it, and
    `Unavailable`.
    """
    id_token = next(filter(None, map(environ.get, _VARIABLES)), None)
    id_token = id_token or _of_github(server, environ, ca_bundle, proxy)
    body = {**_EXCHANGE, "subject_token": id_token, "resource": adapter}
    status, answer = post(f"{server}/oauth/token", body, ca_bundle, proxy)
    if status == 200 and isinstance(answer.get("access_token"), str):
        return str(answer["access_token"])
    reason = error_of(status, answer)
    if status >= 500:
        raise Unavailable(f"{server} cannot exchange the ID token now: {reason}")
    raise Unauthenticated(f"{server} did not accept this job's ID token: {reason}")


def _of_github(server: str, environ: Mapping[str, str], ca_bundle: str | None, proxy: str | None) -> str:
    """An ID token for this server, from GitHub Actions."""
    url, secret = environ.get(_REQUEST_URL), environ.get(_REQUEST_TOKEN)
    if not url or not secret:
        raise Invalid(
            "this process has no ID token: in GitHub Actions, give the job `permissions: id-token: write`; in"
            " GitLab, define ADAPTRY_ID_TOKEN under `id_tokens`; elsewhere, set ADAPTRY_ID_TOKEN"
        )
    separator = "&" if urlsplit(url).query else "?"
    address = f"{url}{separator}{urlencode({'audience': server})}"
    status, answer = request("GET", address, {"Authorization": f"Bearer {secret}"}, ca_bundle, proxy)
    if status != 200 or not isinstance(answer.get("value"), str):
        raise Unavailable(f"GitHub Actions gave no ID token (status {status})")
    return str(answer["value"])
