"""Trusted publishing: a CI job's ID token is exchanged for a token that can push to one adapter, or is
refused.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc.jwk import ECKey

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.audit_log import AuditFilter
from adaptry.registry.publishers import IssuerRequest, PublisherRequest
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server, assert_problem, running_server

from .local_issuer import AUDIENCE, EXCHANGE, RELEASE, LocalIssuer, rsa_key, running_issuer

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with running_issuer() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests; each test has its own issuer."""
    settings = ServerSettings(data=tmp_path_factory.mktemp("registry"), allow_outgoing=("127.0.0.0/8",))
    with running_server(settings) as running:
        yield running


@pytest.fixture
def publishing(server: Server, issuer: LocalIssuer) -> Iterator[Server]:
    """A server that trusts the issuer, with a publisher of acme/tone."""
    roles = server.registry().publishers
    trust(server, issuer)
    roles.add(TONE, rule(issuer))
    yield server
    for one in roles.list(TONE):
        roles.remove(TONE, one.id)


def trust(server: Server, issuer: LocalIssuer, name: str | None = None) -> None:
    request = IssuerRequest(name=name or issuer.name, url=issuer.url, kind="github", audience=AUDIENCE)
    server.registry().publishers.add_issuer(request)


def rule(issuer: LocalIssuer, **changes: Any) -> PublisherRequest:
    usual = {"project_id": "1001", "owner_id": "77", "workflow": RELEASE, "branch": "main"}
    return PublisherRequest.model_validate({"issuer": issuer.name} | usual | changes)


def account(server: Server) -> str:
    return server.registry().publishers.list(TONE)[0].account


def exchange(server: Server, token: str, resource: str = "acme/tone", **changes: object) -> RawResponse:
    body = EXCHANGE | {"subject_token": token, "resource": resource} | changes
    return server.call("POST", "/oauth/token", body, token=None)


def assert_refused(answer: RawResponse, error: str, sentence: str) -> None:
    assert (answer.status, answer.json["error"]) == (400, error), answer.body
    assert sentence in answer.json["error_description"], answer.json


def test_a_job_pushes_with_its_id_token_and_no_stored_secret(
    publishing: Server, issuer: LocalIssuer, tmp_path: Path
) -> None:
    answer = exchange(publishing, issuer.token())
    assert answer.status == 200, answer.body
    assert (answer.json["token_type"], answer.json["expires_in"] <= 900) == ("bearer", True)
    assert answer.headers["Cache-Control"] == "no-store"
    job = publishing.registry(answer.json["access_token"])
    pushed = push(job, open_dir(tiny_lora(tmp_path / "own", seed=7)), TONE).version
    assert pushed.created_by == account(publishing)


def test_a_jobs_token_only_pushes_to_that_adapter(
    publishing: Server, issuer: LocalIssuer, tone: Adapter
) -> None:
    push(publishing.registry(), tone, VOICE)
    job = publishing.registry(exchange(publishing, issuer.token()).json["access_token"])
    version = push(job, tone, TONE).version
    with pytest.raises(PermissionDenied):
        push(job, tone, AdapterName.parse("acme/another"))
    with pytest.raises(NotFound):
        job.versions.list(VOICE)
    with pytest.raises(PermissionDenied):
        job.aliases.move(TONE, "prod", version.digest, None)
    with pytest.raises(PermissionDenied):
        job.adapters.delete(TONE)
    with pytest.raises(PermissionDenied):
        job.publishers.list(TONE)
    own = publishing.call(
        "POST", "/api/v1/tokens", {"principal": "acme/publisher-1", "name": "more"}, token="x"
    )
    assert own.status == 401


def test_a_jobs_token_cannot_create_tokens(publishing: Server, issuer: LocalIssuer) -> None:
    token = exchange(publishing, issuer.token()).json["access_token"]
    answer = publishing.call(
        "POST", "/api/v1/tokens", {"principal": account(publishing), "name": "more", "days": 3}, token=token
    )
    assert_problem(answer, 403, "denied")


WRONG_CLAIMS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"repository_id": "1002"}, "no publisher of acme/tone is for this job"),
    ({"repository_owner_id": "78"}, "no publisher of acme/tone is for this job"),
    ({"ref": "refs/heads/dev", "workflow_ref": f"acme/train/{RELEASE}@refs/heads/dev"}, "branch dev"),
    ({"ref": "refs/tags/main", "workflow_ref": f"acme/train/{RELEASE}@refs/tags/main"}, "branch none"),
    ({"workflow_ref": "acme/train/.github/workflows/other.yml@refs/heads/main"}, "workflow .github"),
    ({"workflow_ref": f"evil/train/{RELEASE}@refs/heads/main"}, "not one of its repository"),
    ({"workflow_ref": f"acme/train/{RELEASE}@x.yml@refs/heads/main"}, "no publisher"),
    ({"event_name": "pull_request_target"}, "pull_request_target starts may not publish"),
    ({"event_name": "workflow_run"}, "workflow_run starts may not publish"),
    ({"event_name": None}, "no claim event_name"),
    ({"repository_id": None}, "no claim repository_id"),
    ({"repository_id": "1001 "}, "not a number"),
    ({"aud": "https://other.example"}, "must be for"),
    ({"aud": [AUDIENCE, "https://other.example"]}, "must be for"),
    ({"aud": AUDIENCE + "/"}, "must be for"),
    ({"aud": None}, "must be for"),
    ({"exp": 1_000_000_000}, "has expired"),
    ({"exp": None}, "no valid claim exp"),
    ({"exp": True}, "no valid claim exp"),
    ({"exp": "9999999999"}, "no valid claim exp"),
    ({"exp": 1e300}, "no valid claim exp"),
    ({"iat": 9_999_999_999}, "not valid yet"),
    ({"nbf": 9_999_999_999}, "not valid yet"),
    ({"jti": None}, "no claim jti"),
    ({"jti": ""}, "no claim jti"),
    ({"iss": "https://token.actions.githubusercontent.com"}, "is not trusted here"),
    ({"iss": ["a"]}, "not supported"),
)


def test_a_token_of_another_job_time_or_audience_is_refused(publishing: Server, issuer: LocalIssuer) -> None:
    for claims, sentence in WRONG_CLAIMS:
        assert_refused(exchange(publishing, issuer.token(**claims)), "invalid_grant", sentence)


def test_a_clock_may_be_wrong_by_a_minute(publishing: Server, issuer: LocalIssuer) -> None:
    now = int(time.time())
    assert exchange(publishing, issuer.token(exp=now - 30, iat=now - 300)).status == 200
    assert exchange(publishing, issuer.token(iat=now + 30, nbf=now + 30)).status == 200
    assert_refused(exchange(publishing, issuer.token(exp=now - 90)), "invalid_grant", "has expired")
    assert_refused(exchange(publishing, issuer.token(iat=now + 90)), "invalid_grant", "not valid yet")


def test_an_id_token_is_used_once_also_by_many_at_once(publishing: Server, issuer: LocalIssuer) -> None:
    token = issuer.token()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: exchange(publishing, token), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [400] * 7
    assert_refused(exchange(publishing, token), "invalid_grant", "was used before")


def test_a_token_with_the_same_id_is_used_once(publishing: Server, issuer: LocalIssuer) -> None:
    assert exchange(publishing, issuer.token(jti="same")).status == 200
    assert_refused(exchange(publishing, issuer.token(jti="same", run_id="6")), "invalid_grant", "used before")


def test_unsigned_tokens_and_those_signed_with_a_shared_secret_are_refused(
    publishing: Server, issuer: LocalIssuer
) -> None:
    _, claims, signature = issuer.token().split(".")
    for algorithm in ("none", "None", "NONE", "HS256", "RS512", "", None, 5):
        header = _encode({"alg": algorithm, "kid": "first"})
        for ending in ("", signature):
            answer = exchange(publishing, f"{header}.{claims}.{ending}")
            assert_refused(answer, "invalid_grant", "RS256 and ES256 are accepted")
    signed = f"{_encode({'alg': 'HS256', 'kid': 'first'})}.{claims}"
    secret = hmac.digest(rsa_key("first").as_pem(private=False), signed.encode(), "sha256")
    confused = f"{signed}.{base64.urlsafe_b64encode(secret).decode().rstrip('=')}"
    assert_refused(exchange(publishing, confused), "invalid_grant", "RS256 and ES256 are accepted")


def test_a_key_inside_the_token_is_not_used(publishing: Server, issuer: LocalIssuer) -> None:
    own = rsa_key("attacker")
    inside = issuer.token(key=own, header={"kid": "first", "jwk": own.as_dict(private=False)})
    assert_refused(exchange(publishing, inside), "invalid_grant", "signature of the ID token is not valid")
    named = issuer.token(key=own, header={"jku": "https://evil.example/keys"})
    assert_refused(exchange(publishing, named), "invalid_grant", "a key that its issuer does not have")
    without = issuer.token(key=own, header={"kid": None})
    assert exchange(publishing, without).status == 400


def test_changed_claims_are_refused(publishing: Server, issuer: LocalIssuer) -> None:
    header, claims, signature = issuer.token(repository_id="1002").split(".")
    changed = _encode(_decode(claims) | {"repository_id": "1001"})
    answer = exchange(publishing, f"{header}.{changed}.{signature}")
    assert_refused(answer, "invalid_grant", "signature of the ID token is not valid")


def test_one_issuer_cannot_speak_for_another(publishing: Server, issuer: LocalIssuer) -> None:
    with running_issuer() as other:
        other.key = rsa_key("other")
        other.published = [other.key]
        trust(publishing, other)
        forged = other.token(iss=issuer.url)
        assert_refused(exchange(publishing, forged), "invalid_grant", "a key that its issuer does not have")
        same_id = other.token(iss=issuer.url, header={"kid": "first"})
        assert_refused(exchange(publishing, same_id), "invalid_grant", "signature")
        honest = other.token()
        assert_refused(exchange(publishing, honest), "invalid_grant", "no publisher of acme/tone")


def test_an_issuer_whose_metadata_names_another_is_refused(publishing: Server, issuer: LocalIssuer) -> None:
    issuer.named = "https://token.actions.githubusercontent.com"
    answer = exchange(publishing, issuer.token())
    assert (answer.status, answer.json["error"]) == (503, "temporarily_unavailable")


def test_keys_are_fetched_again_when_the_issuer_changed_them(publishing: Server, issuer: LocalIssuer) -> None:
    old = issuer.key
    assert exchange(publishing, issuer.token()).status == 200
    assert exchange(publishing, issuer.token()).status == 200
    assert issuer.requests.count("/keys") == 1
    issuer.rotate(ECKey.generate_key("P-256", {"kid": "second", "use": "sig"}, private=True))
    assert exchange(publishing, issuer.token()).status == 200
    assert issuer.requests.count("/keys") == 2
    withdrawn = exchange(publishing, issuer.token(key=old))
    assert_refused(withdrawn, "invalid_grant", "a key that its issuer does not have")


def test_invented_key_ids_cause_a_few_requests_only(publishing: Server, issuer: LocalIssuer) -> None:
    for number in range(20):
        forged = issuer.token(key=rsa_key("attacker"), header={"kid": f"invented-{number}"})
        assert_refused(exchange(publishing, forged), "invalid_grant", "a key that its issuer does not have")
    assert issuer.requests.count("/keys") == 6
    assert exchange(publishing, issuer.token()).status == 200


def test_an_unreachable_issuer_does_not_delay_tokens_with_known_keys(
    publishing: Server, issuer: LocalIssuer
) -> None:
    issuer.is_away = True
    away = exchange(publishing, issuer.token())
    assert (away.status, away.json["error"]) == (503, "temporarily_unavailable")
    assert "127.0.0.1" not in away.json["error_description"].replace(issuer.url, "")
    issuer.is_away = False
    assert exchange(publishing, issuer.token()).status == 200
    issuer.is_away = True
    assert exchange(publishing, issuer.token()).status == 200


def test_an_issuer_in_a_private_network_is_contacted_only_if_allowed(
    start: Callable[..., Server], issuer: LocalIssuer
) -> None:
    server = start()
    trust(server, issuer)
    server.registry().publishers.add(TONE, rule(issuer))
    assert exchange(server, issuer.token()).status == 503
    assert issuer.requests == []


def test_an_adapter_without_publishers_answers_like_one_that_does_not_exist(
    publishing: Server, issuer: LocalIssuer, tone: Adapter
) -> None:
    push(publishing.registry(), tone, VOICE)
    private = exchange(publishing, issuer.token(), "acme/voice").json["error_description"]
    missing = exchange(publishing, issuer.token(), "acme/nothing").json["error_description"]
    assert private.replace("voice", "nothing") == missing


def test_other_requests_get_the_codes_of_oauth(publishing: Server, issuer: LocalIssuer) -> None:
    token = issuer.token()
    assert_refused(exchange(publishing, token, "datasets/acme/tone"), "invalid_target", "an adapter's name")
    assert_refused(exchange(publishing, token, "acme"), "invalid_target", "an adapter's name")
    assert_refused(exchange(publishing, token, grant_type="password"), "unsupported_grant_type", "password")
    assert_refused(exchange(publishing, token, subject_token_type="x"), "invalid_request", "must be")
    assert_refused(exchange(publishing, ""), "invalid_request", "subject_token is missing")
    assert_refused(exchange(publishing, token, resource=5), "invalid_request", "must be a string")
    for text in ("a.b", "a.b.c", "....", "x" * 13_000, _encode([]) + "." + _encode({}) + ".x", "ä.ö.ü"):
        assert_refused(exchange(publishing, text), "invalid_grant", "not an ID token")
    nested = base64.urlsafe_b64encode(b"[" * 4000).decode().rstrip("=")
    assert_refused(exchange(publishing, f"{nested}.{nested}.x"), "invalid_grant", "not an ID token")


def test_parameters_are_sent_as_a_form_too(publishing: Server, issuer: LocalIssuer) -> None:
    form = urlencode(EXCHANGE | {"resource": "acme/tone", "subject_token": issuer.token()})
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = publishing.call("POST", "/oauth/token", form.encode(), token=None, headers=kind)
    assert answer.status == 200, answer.body
    for body, sentence in (
        (form + "&resource=acme%2Fvoice", "given twice"),
        ("&".join(f"a{n}=1" for n in range(99)), "malformed"),
        ("ä=1", "malformed"),
    ):
        again = publishing.call("POST", "/oauth/token", body.encode(), token=None, headers=kind)
        assert_refused(again, "invalid_request", sentence)
    plain = publishing.call("POST", "/oauth/token", b"x", token=None, headers={"Content-Type": "text/plain"})
    assert_refused(plain, "invalid_request", "as a form or as JSON")
    assert publishing.call("POST", "/oauth/token", b"x" * 20_000, token=None, headers=kind).status == 413


def test_a_removed_publisher_and_its_tokens_end(
    publishing: Server, issuer: LocalIssuer, tone: Adapter
) -> None:
    token = exchange(publishing, issuer.token()).json["access_token"]
    roles = publishing.registry().publishers
    (known,) = roles.list(TONE)
    roles.remove(TONE, known.id)
    assert publishing.call("GET", "/api/v1/whoami", token=token).status == 401
    assert_refused(exchange(publishing, issuer.token()), "invalid_grant", "no publisher")
    with pytest.raises(NotFound):
        roles.remove(TONE, known.id)
    again = roles.add(TONE, rule(issuer))
    assert again.account != known.account, "names of principals are never reused"


def test_a_disabled_account_stops_its_publisher(publishing: Server, issuer: LocalIssuer) -> None:
    publishing.registry().principals.set_disabled(account(publishing), True)
    assert_refused(exchange(publishing, issuer.token()), "invalid_grant", "no publisher")


def test_owners_manage_publishers_and_administrators_manage_issuers(
    publishing: Server, issuer: LocalIssuer
) -> None:
    owner = publishing.registry(publishing.token("olga", "owner", ("acme",)))
    maintainer = publishing.registry(publishing.token("mia", "maintainer", ("acme",)))
    other = publishing.registry(publishing.token("otto", "owner", ("other",)))
    (known,) = owner.publishers.list(TONE)
    assert owner.publishers.add(TONE, rule(issuer)) == known
    assert owner.publishers.add(TONE, rule(issuer, branch=None, environment="release")).id != known.id
    for registry in (maintainer, other):
        with pytest.raises(PermissionDenied):
            registry.publishers.list(TONE)
        with pytest.raises(PermissionDenied):
            registry.publishers.add(VOICE, rule(issuer))
        with pytest.raises(PermissionDenied):
            registry.publishers.remove(TONE, known.id)
    with pytest.raises(PermissionDenied):
        owner.publishers.add_issuer(
            IssuerRequest(name="own", url="https://evil.example", kind="github", audience="a")
        )
    with pytest.raises(PermissionDenied):
        owner.publishers.remove_issuer(issuer.name)
    assert issuer.name in [one.name for one in owner.publishers.list_issuers()]


def test_issuers_are_added_once_and_removed_when_unused(publishing: Server, issuer: LocalIssuer) -> None:
    roles = publishing.registry().publishers
    with pytest.raises(Conflict, match="exists already"):
        trust(publishing, issuer)
    with pytest.raises(Conflict, match="exists already"):
        trust(publishing, issuer, "again")
    with pytest.raises(Conflict, match="publishers use the issuer"):
        roles.remove_issuer(issuer.name)
    roles.remove(TONE, roles.list(TONE)[0].id)
    roles.remove_issuer(issuer.name)
    assert issuer.name not in [one.name for one in roles.list_issuers()]
    with pytest.raises(NotFound):
        roles.add(TONE, rule(issuer))
    for url in ("not a url", "https://a.example/?x", "https://user@a.example", "ftp://a.example"):
        with pytest.raises(Invalid):
            roles.add_issuer(IssuerRequest(name="bad", url=url, kind="github", audience="a"))


def test_a_publisher_without_environment_and_branch_is_refused(publishing: Server) -> None:
    body = {"issuer": "github", "project_id": "1", "owner_id": "2", "workflow": "w"}
    answer = publishing.call("POST", "/api/v1/adapters/acme/tone/publishers", body)
    assert answer.status == 422 and b"name an environment, a branch, or both" in answer.body


def test_the_audit_log_names_the_job_and_denied_exchanges(publishing: Server, issuer: LocalIssuer) -> None:
    exchange(publishing, issuer.token(run_id="4711"))
    assert exchange(publishing, issuer.token(repository_id="666")).status == 400
    log = publishing.registry().audit
    entry = log.list(AuditFilter(actor=account(publishing), action="publisher.exchange"), None, 50).items[0]
    assert entry.what == "acme/tone" and (entry.after or {})["run_id"] == "4711"
    actions = {one.action for one in log.list(AuditFilter(), None, 200).items}
    assert {"issuer.add", "publisher.add", "publisher.exchange", "token.create"} <= actions


def _encode(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


def _decode(part: str) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return decoded
