"""A resource that is hidden from a caller gets the same response as a missing one, byte for byte: on every
route, for every kind of caller without access, and for every kind of resource.

The routes are read from the application: the test fails for a new route until it is described here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.publishers import IssuerRequest, PublisherRequest
from adaptry.registry.records import PushOptions
from adaptry.registry.webhooks import WebhookRequest
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.testing.contract.inbox import RESULTS, lm_eval_results
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.app import create_app
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import RawResponse, Server, running_server

TONE = AdapterName.parse("acme/tone")
STRANGERS: dict[str, Identity | None] = {
    "nobody": None,
    "no grants": Identity("zero"),
    "an owner of another namespace": Identity.with_role("evan", "owner", ("evil",)),
    "a reader of another adapter of the namespace": Identity.with_role("rosa", "viewer", ("acme/voice",)),
    "a worker elsewhere": Identity.with_role("gpu", "worker", ("evil",)),
    "grants of every action but read": Identity(
        "wanda",
        tuple(Grant(action, Resource("acme")) for action in ("push", "alias.move", "delete", "state.set")),
    ),
    "a pattern that only looks alike": Identity.with_role("pat", "admin", ("acme-*", "a?me-*")),
}
WITHOUT_TWIN = {
    "/-/static/{tag}/{file}": "the static files of the pages, equal for all callers",
    "/xet/{upload}/v1/xorbs/default/{hash}": "the address has a grant that the server signed",
    "/xet/{upload}/v1/chunks/{kind}/{hash}": "the address has a grant that the server signed",
    "/xet/{upload}/shards": "the address has a grant that the server signed",
    "/xet/{upload}/v1/shards": "the address has a grant that the server signed",
    "/xet/{upload}/v2/shards": "the address has a grant that the server signed",
    "/api/v1/authorize/ext-authz/{path:path}": "the body names the model, see the last test",
}
"""Routes on which no name of a thing is tried, and why."""
_NEVER_ALIKE = frozenset({"content-length", "date", "request-id", "x-request-id"})
_NAMING = frozenset({"x-error-message", "location", "link"})
"""Headers that repeat the name that was asked for."""
_IDS = re.compile(r'"request":"[^"]*"|req_[0-9A-Za-z]+')


@dataclass(frozen=True)
class Twin:
    """A name of a hidden resource, and a name that does not exist. `values` are for other parts of an
    address.
    """

    hidden: str
    absent: str
    values: dict[str, str]


@dataclass(frozen=True)
class Scene:
    server: Server
    twins: dict[str, list[Twin]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("hidden")
    with ExitStack() as at_the_end:
        settings = ServerSettings(data=folder / "data", anonymous_read=True)
        with running_server(settings, at_the_end.callback) as server:
            yield Scene(server, _hidden(server, folder))


def _hidden(server: Server, folder: Path) -> dict[str, list[Twin]]:
    """Resources of all kinds in acme, by the parts of addresses that name them."""
    registry = server.registry()
    options = PushOptions(alias="prod")
    digest = push(registry, open_dir(tiny_lora(folder / "lora")), TONE, options=options).version.digest
    registry.commits.create_branch(TONE, "trial")
    registry.commits.create_tag(TONE, "first", "main", "")
    base = register_base(
        registry, open_checkpoint(tiny_base(folder / "base")), ("acme/base", "secretbase"), store=True
    )
    upload = registry.uploads.open(TONE, Digest.of(b"x"), 1)
    merged = {"base": "acme/base", "inputs": ["acme/tone"], "to": "acme/merged"}
    job = registry.jobs.submit(JobOrder(kind="merge", task=merged)).id
    registry.jobs.schedule("nightly", "30 2 * * *", JobOrder(kind="merge", task=merged))
    loaded = ResidentReport(
        name=TONE, digest=digest, served_as="tone", condition="serving", since="2026-05-01T12:00Z"
    )
    registry.workers.report(WorkerReport(worker="gpu-7", engine="vllm", residents=(loaded,)))
    results = Digest.of(b"{}")
    registry.uploads.finish(registry.uploads.append(registry.uploads.open(TONE, results, 2), 0, [b"{}"]))
    values = (EvidenceValue(metric="accuracy", value=0.7),)
    registry.evidence.add(Ref(TONE), EvidenceFile(digest=results, format="lm-eval", values=values))
    measured = registry.evidence.list(Ref(TONE)).items[0].id
    kept = registry.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
    registry.principals.create_group("hidden")
    issuer, audience = "https://ci.example", "https://registry.example"
    registry.publishers.add_issuer(IssuerRequest(name="hidden", url=issuer, kind="github", audience=audience))
    publisher = registry.publishers.add(
        TONE, PublisherRequest(issuer="hidden", project_id="1", owner_id="2", workflow="w.yml", branch="main")
    )
    text = "alias: stage\nrequire:\n- state() == 'active'\n"
    registry.policies.set(PolicyRequest(scope="acme/tone", text=text))
    promotion = registry.aliases.move(TONE, "stage", digest, None).promotion
    grant = registry.grants.list().items[0].id
    token = registry.tokens.list().items[0].id
    hook = registry.webhooks.add(WebhookRequest(namespace="acme", url="https://127.0.0.1:9/")).webhook.id
    version = {
        "selector": "prod", "revision": str(digest), "alias": "prod", "digest": str(digest),
        "id": str(publisher.id), "branch": "trial", "tag": "first", "path": "adapter_config.json",
        "number": "1",
    }  # fmt: skip
    of_hub = version | {"revision": "main"}
    of_base = {"path": "config.json", "digest": str(digest), "revision": "main"}
    other = str(Digest.of(b"no base"))
    return {
        "{namespace}/{name}": [
            Twin("acme/tone", "acme/none", version),
            Twin("acme/tone", "acme/none", of_hub),
            Twin("acme/base", "acme/none", of_base | version),
        ],
        "{word}": [Twin("secretbase", "absentbase", of_base)],
        "{base}": [Twin(str(base.id), other, of_base)],
        "/like/{digest}": [Twin(str(base.id), other, {})],
        "{namespace}": [Twin("acme", "nope", {})],
        "{job}": [Twin(job, "job-0123456789abcdef", {})],
        "/jobs/{id}": [Twin(job, "job-0123456789abcdef", {})],
        "{schedule}": [Twin("nightly", "weekly7", {})],
        "{worker}": [Twin("gpu-7", "gpu-8", {})],
        "{group}": [Twin("hidden", "absent", {})],
        "{issuer}": [Twin("hidden", "absent", {})],
        "/evidence/{id}": [Twin(str(measured), "999", {"part": "file"})],
        "/results/{id}": [Twin(str(kept), "999", {})],
        "/promotions/{id}": [Twin(str(promotion), "999", {})],
        "/uploads/{id}": [Twin(upload.id, "0123456789abcdef" * 2, {})],
        "/tokens/{id}": [Twin(str(token), "999", {})],
        "/webhooks/{id}": [Twin(str(hook), "999", {"message": registry.webhooks.test(hook).message})],
        "/grants/{id}": [Twin(str(grant), "999", {})],
    }


def routes(tmp_path: Path) -> list[APIRoute]:
    app = create_app(ServerSettings(data=tmp_path / "other"))
    return [route for route in app.routes if isinstance(route, APIRoute) and "{" in route.path]


def twins_of(path: str, twins: dict[str, list[Twin]]) -> tuple[str, list[Twin]]:
    """The part of a route that names a resource, and the two names for it."""
    for part, found in twins.items():
        if part in path:
            return part, found
    return "", []


def body_of(method: str, template: str, digest: str) -> object:
    """A body that would be valid if an owner sent it, for the routes that change most."""
    if method not in ("POST", "PUT", "PATCH"):
        return None
    bodies: dict[str, object] = {
        "/rename": {"to": "evil/moved"},
        "/metrics": {"metrics": {"accuracy": 1.0}},
        "/aliases/{alias}": {"to": digest},
        "/evaluation": {"to": digest},
        "/members": {"principal": "evan", "role": "viewer"},
        "/accountable": {"principal": "evan"},
        "/gone": {"reason": "switched off"},
        "/batch": {"operation": "upload", "objects": [{"oid": "a" * 64, "size": 1}]},
        "/verify": {"oid": "a" * 64, "size": 1},
        "/uploads": {"digest": digest, "size": 1},
        "/commits": {"branch": "main", "title": "mine"},
        "/branches": {"name": "mine"},
        "/tags": {"name": "mine", "at": "main"},
        "/base": {"base": digest},
        "/state": {"state": "revoked", "reason": "mine"},
        "/settings": {"private": False},
        "/withdrawal": {"reason": "mine"},
        "/secret": {"hours": 1},
        "/webhooks/{id}": {"is_enabled": False},
        "/attachment": {"ref": "acme/tone"},
        "/results": {"path": RESULTS, "content": base64.b64encode(lm_eval_results("./out")).decode()},
        "/evidence": {"digest": digest, "format": "lm-eval", "values": [{"metric": "m", "value": 1.0}]},
        "/rollouts": {"to": digest, "plan": {"steps": [10, 100]}},
    }
    return next((body for end, body in bodies.items() if template.endswith(end)), {"description": "mine"})


def seen(answer: RawResponse, name: str) -> tuple[int, dict[str, str], str]:
    """The whole response, except for what differs between any two requests."""
    short = re.escape(name[:19]) + r"\w*" if name.startswith("sha256:") else re.escape(name)
    named = re.compile(rf"(?<![\w.]){short}(?!\w)")
    headers = {
        key.lower(): named.sub("NAME", value) if key.lower() in _NAMING else value
        for key, value in answer.headers.items()
        if key.lower() not in _NEVER_ALIKE
    }
    return answer.status, headers, _IDS.sub("", named.sub("NAME", answer.body.decode()))


@pytest.mark.parametrize("who", STRANGERS)
def test_no_route_distinguishes_hidden_from_absent(scene: Scene, tmp_path: Path, who: str) -> None:
    identity, server = STRANGERS[who], scene.server
    token = server.token_of(identity) if identity else None
    digest = str(server.registry().aliases.list(TONE)[0].digest)
    tried, told = 0, []
    for route in routes(tmp_path):
        part, found = twins_of(route.path, scene.twins)
        for method in sorted(route.methods or ()):
            for twin in found:
                path = route.path.replace("{namespace}/{name}" if part == "" else part, "{*}", 1)
                path = re.sub(r"\{(\w+)(:\w+)?\}", lambda m: twin.values.get(m[1], "x"), path)  # noqa: B023
                answers = []
                for name in (twin.hidden, twin.absent):
                    there = path.replace("{*}", part_with(part, name))
                    answer = server.call(
                        method, there, body_of(method, route.path, digest), token=token,
                        headers={"If-Match": '"1"'},
                    )  # fmt: skip
                    answers.append(seen(answer, name))
                if answers[0] != answers[1]:
                    told.append((method, path, twin.hidden, *answers))
                tried += 1
    assert not told
    assert tried > 150


def part_with(part: str, name: str) -> str:
    """The part of an address that names a resource, with the name filled in."""
    return re.sub(r"\{.*\}", name, part)


def test_every_route_with_a_name_is_tried(scene: Scene, tmp_path: Path) -> None:
    untried = {route.path for route in routes(tmp_path) if not twins_of(route.path, scene.twins)[1]}
    assert untried == set(WITHOUT_TWIN)


QUERIES: dict[str, Callable[[str], str]] = {
    "search": lambda name: f"/api/v1/search?q=name:{name}",
    "events": lambda name: f"/api/v1/events?after=0&adapter={name}",
    "uploads": lambda name: f"/api/v1/uploads?namespace={name.partition('/')[0]}",
    "access": lambda name: f"/api/v1/access?principal=root&action=read&ref={name}",
    "grants": lambda name: f"/api/v1/grants?namespace={name.partition('/')[0]}",
    "webhooks": lambda name: f"/api/v1/webhooks?namespace={name.partition('/')[0]}",
    "quotas": lambda name: f"/api/v1/quotas?scope=namespace&name={name.partition('/')[0]}",
    "policies": lambda name: f"/api/v1/policies?scope={name}",
    "policy versions": lambda name: f"/api/v1/policies/history?scope={name}&alias=prod",
    "bases": lambda name: f"/api/v1/bases/find?key={name}",
    "models": lambda name: f"/api/models?search={name}",
    "base page": lambda name: f"/-/base?format=json&key={name}",
    "base copies": lambda name: f"/-/base/copies?format=json&key={name}",
    "home": lambda name: f"/?format=json&q=name:{name}",
    "facets": lambda name: f"/-/facets?format=json&q=name:{name}",
    "completion": lambda name: f"/-/complete?q=name:{name}",
    "compare": lambda name: f"/-/compare?ref={name}&ref={name}@1",
    "weights": lambda name: f"/-/compare/weights?format=json&ref={name}",
    "weight distance": lambda name: f"/api/v1/adapters/evil/mine/versions/1/weight-distance?other={name}",
    "fleet": lambda name: "/-/fleet?format=json",
    "authors": lambda name: f"/api/models?author={name.partition('/')[0]}",
}


@pytest.mark.parametrize("who", STRANGERS)
def test_no_query_distinguishes_hidden_from_absent(scene: Scene, who: str) -> None:
    identity = STRANGERS[who]
    token = scene.server.token_of(identity) if identity else None
    for query in QUERIES.values():
        for hidden, absent in (("acme/tone", "nope/tone"), ("acme/base", "nope/base")):
            answers = []
            for name in (hidden, absent):
                namespace = name.partition("/")[0]
                answer = scene.server.call("GET", query(name), token=token)
                answers.append(seen(answer, namespace))
            assert answers[0] == answers[1], query(hidden)


@pytest.mark.parametrize("who", STRANGERS)
def test_no_gateway_distinguishes_hidden_from_absent(scene: Scene, who: str) -> None:
    identity, server = STRANGERS[who], scene.server
    token = server.token_of(identity) if identity else "adr_pat_nobody"
    everywhere = (Grant("inference.authorize", Resource("*")),)
    gate = server.token_of(Identity("gate", everywhere))
    names = [("acme/tone", "acme/none"), ("acme/tone@prod", "nope/tone@prod"), ("acme/tone@1", "acme/tone@9")]
    names += [("acme/tone+acme/none", "acme/none+acme/nil")]
    for hidden, absent in names:
        questions = [{"token": token, "model": name} for name in (hidden, absent)]
        asked = [server.call("POST", "/api/v1/authorize", one, token=gate) for one in questions]
        passed = [
            server.call(
                "POST", "/api/v1/authorize/ext-authz/v1/completions", {"model": name}, token=token,
                headers={"Adaptry-Gateway-Token": gate},
            )
            for name in (hidden, absent)
        ]  # fmt: skip
        assert seen(asked[0], hidden) == seen(asked[1], absent)
        assert seen(passed[0], hidden) == seen(passed[1], absent)
        assert (asked[0].json["is_allowed"], passed[0].status) == (False, 403)
