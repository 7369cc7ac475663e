"""Token exchange (RFC 8693): a CI job's ID token for a token that pushes to one adapter for 15 minutes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from adaptry.core.access.ci_jobs import read_job
from adaptry.core.errors import AdaptryError, Invalid, Unauthenticated, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.registry.access import CreatedToken
from adaptry.storage import token_exchange
from adaptry_api.app_state import AppState
from adaptry_api.oauth import id_tokens
from adaptry_api.oauth.responses import OAuthError, required

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
_RECORDED = (
    *("sub", "repository", "workflow_ref", "run_id", "sha", "event_name", "actor", "environment", "ref"),
    *("project_path", "pipeline_id", "job_id", "user_login", "pipeline_source"),
)
"""Claims that are recorded in the audit log: the job, its commit, and the user who triggered it."""


def exchange_token(state: AppState, parameters: Mapping[str, str]) -> CreatedToken:
    """The job's token. Raises `OAuthError`: `invalid_target` for a resource that is not an adapter's name,
    `invalid_grant` for a token that is not accepted, `temporarily_unavailable` while the provider's keys
    cannot be fetched.
    """
    if required(parameters, "subject_token_type") != _ID_TOKEN:
        raise OAuthError("invalid_request", f"subject_token_type must be {_ID_TOKEN}")
    name = _resource(required(parameters, "resource"))
    try:
        return _exchange(state, name, required(parameters, "subject_token"))
    except Unavailable as error:
        raise OAuthError("temporarily_unavailable", error.public_message) from error
    except (Invalid, Unauthenticated) as error:
        raise OAuthError("invalid_grant", error.public_message) from error


def _exchange(state: AppState, name: AdapterName, text: str) -> CreatedToken:
    token = id_tokens.read_unverified(text)
    issuer = token_exchange.find_issuer(state.catalog, token.issuer)
    if issuer is None:
        raise Invalid(f"the issuer {token.issuer[:200]!a} is not trusted here; administrators add issuers")
    claims = id_tokens.verify(token, state.issuer_keys.keys_of(issuer.url, token.key_id), issuer.audience)
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:
        raise Invalid("the ID token has no claim jti, without which it could be used twice")
    job = read_job(issuer.kind, claims)
    facts = {claim: str(claims[claim])[:200] for claim in _RECORDED if claim in claims}
    ends = datetime.fromtimestamp(claims["exp"], UTC)
    return token_exchange.exchange(state.catalog, issuer, job, name, jti, ends, facts)


def _resource(text: str) -> AdapterName:
    try:
        return AdapterName.parse(text)
    except AdaptryError as error:
        raise OAuthError(
            "invalid_target", f"the resource must be an adapter's name, such as acme/tone, not {text[:100]!a}"
        ) from error
