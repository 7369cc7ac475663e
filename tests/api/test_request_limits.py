"""Limits on requests per minute: who is limited, which response they get, and that counters use bounded
memory.
"""

from __future__ import annotations

import pytest

from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import TooManyRequests
from adaptry.core.identity import ANONYMOUS, Identity
from adaptry.core.quotas import EVERY, UNLIMITED, QuotaLimits, QuotaSubject
from adaptry_api import request_limits
from adaptry_api.request_limits import RequestLimits
from adaptry_api.testing import Server, assert_problem

ANN = Identity("ann", (Grant("viewer", Resource.parse("acme")),), principal=1)
EVERYBODY, ACME = QuotaSubject("principal", EVERY), QuotaSubject("namespace", "acme")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def limits(clock: Clock, requests: dict[QuotaSubject, int]) -> RequestLimits:
    found = RequestLimits(clock)
    found.set_limits({who: QuotaLimits(requests=number) for who, number in requests.items()})
    return found


def admitted(found: RequestLimits, who: Identity, namespace: str | None = None, tries: int = 20) -> int:
    """The number of admitted requests, if this many are made at once."""
    count = 0
    for _ in range(tries):
        try:
            found.admit(who, namespace)
        except TooManyRequests:
            continue
        count += 1
    return count


@pytest.mark.parametrize("limit", [1, 3, 7, 13])
def test_a_minutes_requests_may_come_at_once_and_come_back_evenly(limit: int) -> None:
    clock = Clock()
    found = limits(clock, {EVERYBODY: limit})
    assert admitted(found, ANN) == limit
    with pytest.raises(TooManyRequests, match=f"ann may send {limit} requests a minute") as raised:
        found.admit(ANN, None)
    clock.now += raised.value.retry_after
    assert admitted(found, ANN) == 1
    clock.now += 600
    assert admitted(found, ANN) == limit


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    found = limits(clock, {EVERYBODY: 6})
    assert admitted(found, ANN, tries=1000) == 6
    clock.now += 10
    assert admitted(found, ANN, tries=1000) == 1


def test_each_principal_is_counted_separately_and_anonymous_callers_together() -> None:
    found = limits(Clock(), {EVERYBODY: 3})
    assert [admitted(found, Identity(name)) for name in ("ann", "bob")] == [3, 3]
    assert [admitted(found, ANONYMOUS) for _ in range(2)] == [3, 0]


def test_a_names_own_limit_precedes_the_default() -> None:
    own = QuotaSubject("principal", "ann")
    assert admitted(limits(Clock(), {EVERYBODY: 3, own: 5}), ANN) == 5
    assert admitted(limits(Clock(), {EVERYBODY: 3, own: UNLIMITED}), ANN) == 20


@pytest.mark.parametrize(
    "stranger",
    [
        Identity("eve"),
        Identity.with_role("auditor", "viewer", ("*",)),
        Identity.with_role("pat", "owner", ("ac*", "other")),
    ],
    ids=["no rights", "rights everywhere", "a pattern"],
)
def test_only_members_requests_count_towards_a_namespaces_limit(stranger: Identity) -> None:
    found = limits(Clock(), {ACME: 3})
    assert admitted(found, stranger, "acme") == 20
    assert admitted(found, ANN, "acme") == 3
    assert admitted(found, ANN, "other") == 20


def test_names_without_recent_requests_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "_MAX_ENTRIES", 10)
    found = limits(Clock(), {EVERYBODY: 1})
    for number in range(100):
        found.admit(Identity(f"user-{number}"), None)
    assert admitted(found, Identity("user-99")) == 0
    assert admitted(found, Identity("user-1")) == 1


def test_a_server_refuses_with_the_time_to_wait_and_obeys_a_change_at_once(server: Server) -> None:
    ann = server.token("ann", "reader", ("acme",))
    quota = {"scope": "principal", "name": "ann", "requests": 2}
    assert server.call("PUT", "/api/v1/quotas", quota).status == 200
    answers = [server.call("GET", "/api/v1/whoami", token=ann) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert_problem(answers[2], 429, "too_many_requests")
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 30
    assert "adaptry quota set ann --principal" in answers[2].json["detail"]
    at = "/api/v1/adapters/acme/tone/versions/1"
    assert server.call("GET", at, token=ann).status == 429  # one of the quick routes
    assert server.call("GET", "/api/v1/whoami").status == 200  # others continue
    refused = server.call("GET", "/api/models/acme/tone", token=ann)
    assert (refused.status, "2 requests a minute" in refused.headers["X-Error-Message"]) == (503, True)
    assert int(refused.headers["Retry-After"]) >= 1
    assert server.call("DELETE", "/api/v1/quotas?scope=principal&name=ann").status == 204
    assert server.call("GET", "/api/v1/whoami", token=ann).status == 200


def test_a_full_namespace_answers_413_and_names_a_remedy(server: Server) -> None:
    ann = server.token("ann", "writer", ("acme",))
    quota = {"scope": "namespace", "name": "acme", "bytes": 10}
    assert server.call("PUT", "/api/v1/quotas", quota).status == 200
    upload = {"digest": f"sha256:{'a' * 64}", "size": 11}
    answer = server.call("POST", "/api/v1/adapters/acme/tone/uploads", upload, token=ann)
    assert_problem(answer, 413, "quota_exceeded")
    assert "adaptry quota set acme --bytes SIZE" in answer.json["detail"]
    (shown,) = server.call("GET", "/api/v1/quotas?scope=namespace&name=acme", token=ann).json
    assert (shown["bytes"], shown["used_bytes"], shown["own"]) == (10, 0, ["bytes"])
    assert_problem(server.call("PUT", "/api/v1/quotas", quota, token=ann), 403, "denied")
    assert_problem(server.call("GET", "/api/v1/quotas?scope=namespace", token=ann), 400, "invalid")
