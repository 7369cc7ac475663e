"""Records the examples of the REST description: one real request and response for each operation.

    python -m tests.api.record_examples

It starts a server on an empty registry, calls every operation in a sensible order, and writes the requests
and responses to `api/adaptry_api/description/examples.json`. Times and secrets are replaced, so that the file
does not change without a reason.
"""

from __future__ import annotations

import base64
import itertools
import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.api.local_issuer import AUDIENCE, EXCHANGE, RELEASE, running_issuer

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.protocol import join_parts
from adaptry.registry.records import PushOptions
from adaptry.testing.contract.inbox import RESULTS, lm_eval_results
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api import description
from adaptry_api.settings import ServerSettings, SsoSettings
from adaptry_api.testing import RawResponse, Server, running_server

EXAMPLES = Path(description.__file__).with_name("examples.json")
BASE = "org/tiny"
BYTES = "application/octet-stream"
_TIME = re.compile(r"\b20\d\d-\d\d-\d\dT[0-9:.]+(?:Z|\+00:00)")
_RANDOM = (
    (r"adr_([a-z]+)_[0-9A-Za-z]{38}", r"adr_\1_0123456789abcdef"),
    (r'"subject_token": "[^"]*"', '"subject_token": "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwcyJ9.c2ln"'),
    (r"http://127\.0\.0\.1:[0-9]+(/local-[0-9a-f]{16})?", "https://token.actions.githubusercontent.com"),
    (r'"expires_in": [0-9]+', '"expires_in": 900'),
    (r"whsec_[A-Za-z0-9+/]{43}=", "whsec_q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="),
    (r"msg_[0-9a-f]{24}", "msg_0123456789abcdef01234567"),
    (r'"device_code": "[^"]*"', '"device_code": "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s"'),
    (r"[B-Z]{4}-[B-Z]{4}", "WDJB-MJHT"),
    (r"adaptry/audit/[0-9a-f]{16}", "adaptry/audit/0123456789abcdef"),
    (r'"request": "[0-9a-f]{16}"', '"request": "89abcdef01234567"'),
    (r'"leaf": "[0-9a-f]{64}"', f'"leaf": "{"ab" * 32}"'),
    (r"(?<=\\n)[A-Za-z0-9+/]{43}=(?=\\n)", "q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s="),
    (r"(?<=abcdef )[A-Za-z0-9+/]{91}=", "q6urq" * 18 + "q="),
    (r'"hashes": \[[^\]]*\]', f'"hashes": ["{"cd" * 32}"]'),
    (r"\+[0-9a-f]{8}\+[A-Za-z0-9+/]{44}", "+01234567+" + "Aaur" * 11),
    (r"adr_([a-z]+)_[0-9A-Za-z]{38}", r"adr_\1_0123456789abcdef"),
)
"""What is random or secret in the examples, and what is written instead."""
_LONG = 40
"""Entries of a table or list that an example shows at most."""


@dataclass(slots=True)
class Recorder:
    """Calls a server, and keeps the first exchange of each operation."""

    server: Server
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        example: object = None,
    ) -> RawResponse:
        """Makes one call, which must succeed. `example` replaces a body that is not JSON."""
        at = path + (f"?{urlencode(query)}" if query else "")
        name, parameters = self._operation(method, path)
        answer = self.send(name, method, at, body, headers)
        assert answer.status < 300, (method, path, answer.status, answer.body[:500])
        exchange: dict[str, Any] = {"status": str(answer.status)}
        given = parameters | (query or {}) | (headers or {})
        if given:
            exchange["parameters"] = given
        if body is not None:
            exchange["request"] = example if isinstance(body, bytes) else body
        if answer.body:
            exchange["response"] = _shown(answer)
        self.found.setdefault(name, exchange)
        return answer

    def send(
        self, operation: str, method: str, at: str, body: object, headers: dict[str, str] | None
    ) -> RawResponse:
        return self.server.call(method, at, body, headers=headers)

    def _operation(self, method: str, path: str) -> tuple[str, dict[str, str]]:
        for template, operations in self.server.call("GET", "/openapi.json").json["paths"].items():
            if method.lower() in operations and (values := _match(template, path)) is not None:
                return operations[method.lower()]["operationId"], values
        raise LookupError(f"no operation: {method} {path}")


def record(recorder: Recorder, folder: Path) -> dict[str, dict[str, Any]]:
    """Records an example for each operation."""
    server, call = recorder.server, recorder.call
    v1 = "/api/v1"
    call("GET", "/healthz")
    call("GET", "/readyz")
    call("GET", v1)
    call("GET", f"{v1}/whoami")
    _bases(recorder, folder)
    _first_push(recorder, folder)
    at = f"{v1}/adapters/acme/tone"
    second = push(
        server.registry(),
        open_dir(tiny_lora(folder / "second", layers=1, seed=2)),
        "acme/tone",
        options=PushOptions(metrics={"accuracy": 0.83}),
    ).version.digest
    call("GET", f"{v1}/adapters", query={"namespace": "acme"})
    call("GET", at)
    call("PATCH", at, {"description": "Answers in a friendly tone.", "tags": ["support"]})
    call("GET", f"{at}/history", query={"limit": "2"})
    call("GET", f"{at}/versions")
    call("GET", f"{at}/versions/2")
    call("GET", f"{at}/versions/2/detail")
    call("GET", f"{at}/versions/2/tensors", query={"limit": "2"})
    _measure(server, folder)
    call("GET", f"{at}/versions/2/weight-statistics")
    call("GET", f"{at}/versions/2/weight-distance", query={"other": "acme/tone@1"})
    call("POST", f"{at}/versions/2/downloads")
    call("GET", f"{at}/versions/2/verdicts", query={"runtime": "vllm@0.32,max_lora_rank=16"})
    call("POST", f"{at}/versions/2/metrics", {"metrics": {"accuracy": 0.84}})
    call("GET", f"{at}/versions/2/metrics")
    _evidence(recorder, server, at)
    call("GET", f"{v1}/search", query={"q": "base:org/tiny rank<=16 metric.accuracy>0.8"})
    call("PUT", f"{at}/aliases/prod", {"to": str(second)}, headers={"If-Match": '"1"'})
    call("GET", f"{at}/aliases")
    call("GET", f"{at}/aliases/prod")
    _policies(recorder, server, str(second))
    base = recorder.found["register_base"]["response"]["id"]
    call("PUT", f"{at}/revisions/{second}/base", {"base": base})
    call("GET", f"{at}/revisions/{second}/manifest")
    call("GET", f"{at}/revisions/{second}/files/adapter_config.json")
    _commits(recorder)
    _workers(recorder, str(second))
    call("POST", f"{v1}/authorize", {"token": server.admin, "model": "acme/tone@prod=0.5"})
    request = {"model": "acme/tone@prod", "messages": [{"role": "user", "content": "Hello"}]}
    passed_on = f"{v1}/authorize/ext-authz/v1/chat/completions"
    call("POST", passed_on, request, headers={"Adaptry-Gateway-Token": server.admin})
    call("DELETE", f"{at}/aliases/prod", headers={"If-Match": '"2"'})
    call(
        "PUT",
        f"{at}/revisions/{second}/state",
        {"state": "deprecated", "reason": "version 3 answers better", "successor": "acme/tone@1"},
        headers={"If-Match": '"0"'},
    )
    _jobs(recorder)
    call("GET", f"{v1}/events", query={"after": "0", "limit": "2", "adapter": "acme/*"})
    call("POST", f"{at}/rename", {"to": "acme/voice"})
    call("GET", f"{at}/moved")
    call("DELETE", f"{v1}/adapters/acme/voice")
    token = call("POST", f"{v1}/tokens", {"name": "ci", "role": "writer", "namespaces": ["acme"], "days": 90})
    call("GET", f"{v1}/tokens")
    call("DELETE", f"{v1}/tokens/2")
    _people(call)
    _webhooks(call)
    _audit(call)
    call("POST", f"{v1}/tokens/revoke", {"token": token.json["secret"]})
    call("GET", "/metrics")
    return _scrub(recorder.found)


def _people(call: Callable[..., RawResponse]) -> None:
    v1 = "/api/v1"
    call("POST", f"{v1}/principals", {"kind": "user", "name": "ann"})
    call("GET", f"{v1}/principals", query={"kind": "user"})
    call("POST", f"{v1}/groups", {"name": "ml-team"})
    call("PATCH", f"{v1}/groups/ml-team/members", {"principal": "ann", "is_member": True})
    call("GET", f"{v1}/groups")
    call("PATCH", f"{v1}/namespaces/acme/members", {"group": "ml-team", "role": "contributor"})
    call("PUT", f"{v1}/namespaces/acme/accountable", {"principal": "ann"})
    call("GET", f"{v1}/namespaces/acme/members")
    grant = {
        "principal": "ann",
        "permission": "alias.move",
        "resource": "acme",
        "conditions": ["alias!=prod"],
    }
    id = call("POST", f"{v1}/grants", grant).json["id"]
    call("GET", f"{v1}/grants", query={"principal": "ann"})
    query = {"principal": "ann", "action": "alias.move", "ref": "acme/tone@prod"}
    call("GET", f"{v1}/access", query=query)
    call("DELETE", f"{v1}/grants/{id}")
    invited = call("POST", f"{v1}/invitations", {"name": "ann", "hours": 24})
    call("POST", f"{v1}/invitations/accept", {"code": invited.json["code"], "name": "laptop"})
    call("PUT", f"{v1}/quotas", {"scope": "namespace", "name": "acme", "bytes": 500_000_000_000})
    call("GET", f"{v1}/quotas", query={"scope": "namespace", "name": "acme"})
    call("DELETE", f"{v1}/quotas", query={"scope": "namespace", "name": "acme"})
    _publishers(call)
    call("PATCH", f"{v1}/principals", {"name": "ann", "is_disabled": True})
    call("DELETE", f"{v1}/groups/ml-team")


def _publishers(call: Callable[..., RawResponse]) -> None:
    v1 = "/api/v1"
    at = f"{v1}/adapters/acme/tone/publishers"
    with running_issuer() as issuer:
        trusted = {"name": "github", "url": issuer.url, "kind": "github", "audience": AUDIENCE}
        call("POST", f"{v1}/issuers", trusted)
        call("GET", f"{v1}/issuers")
        rule = {"project_id": "1001", "owner_id": "77", "workflow": RELEASE, "branch": "main"}
        added = call("POST", at, {"issuer": "github"} | rule)
        call("GET", at)
        call("POST", "/oauth/token", EXCHANGE | {"subject_token": issuer.token(), "resource": "acme/tone"})
    call("DELETE", f"{at}/{added.json['id']}")
    call("POST", "/oauth/device", {"client_id": "adaptry"})
    call("PUT", f"{v1}/sso/groups", {"claim": "ml-engineers", "group": "ml-team"})
    call("GET", f"{v1}/sso/groups")
    call("DELETE", f"{v1}/sso/groups", query={"claim": "ml-engineers"})
    linked = {"user": "ann", "issuer": "https://login.example.com", "subject": "00u1"}
    call("PUT", f"{v1}/sso/users", linked)
    call("GET", f"{v1}/sso/users")
    call("DELETE", f"{v1}/issuers/github")


def _webhooks(call: Callable[..., RawResponse]) -> None:
    v1 = "/api/v1/webhooks"
    body = {"namespace": "acme", "url": "https://ci.example.com/hook", "kinds": ["alias.moved", "version.*"]}
    id = call("POST", v1, body).json["webhook"]["id"]
    call("GET", v1, query={"namespace": "acme"})
    call("GET", f"{v1}/{id}")
    message = call("POST", f"{v1}/{id}/test").json["message"]
    call("GET", f"{v1}/{id}/deliveries")
    call("POST", f"{v1}/{id}/deliveries/{message}/redelivery")
    call("POST", f"{v1}/{id}/secret", {"hours": 24})
    call("PATCH", f"{v1}/{id}", {"is_enabled": False})
    call("DELETE", f"{v1}/{id}")


def _policies(recorder: Recorder, server: Server, digest: str) -> None:
    call, v1 = recorder.call, "/api/v1"
    at = f"{v1}/adapters/acme/tone"
    text = "alias: staging\nrequire:\n- metric('accuracy') >= 0.8\n"
    call("PUT", f"{v1}/policies", {"scope": "acme/tone", "text": text})
    call("GET", f"{v1}/policies", query={"scope": "acme/tone"})
    call("GET", f"{v1}/policies/history", query={"scope": "acme/tone", "alias": "staging"})
    call("POST", f"{at}/aliases/staging/evaluation", {"to": digest})
    call("PUT", f"{at}/aliases/staging/approvals/{digest}")
    call("GET", f"{at}/aliases/staging/approvals")
    call("DELETE", f"{at}/aliases/staging/approvals/{digest}")
    name, aliases = AdapterName.parse("acme/tone"), server.registry().aliases
    seen = aliases.move(name, "staging", Digest.parse(digest), None)
    (moved,) = call("GET", f"{at}/promotions", query={"limit": "1"}).json["items"]
    call("GET", f"{v1}/promotions/{moved['id']}")
    call("DELETE", f"{v1}/policies", query={"scope": "acme/tone", "alias": "staging"})
    aliases.remove(name, "staging", seen.generation)


def _audit(call: Callable[..., RawResponse]) -> None:
    v1 = "/api/v1/audit"
    call("GET", f"{v1}/checkpoint")  # this seals the log, so that entries have numbers
    call("GET", v1, query={"action": "grant.*", "limit": "2"})
    call("POST", f"{v1}/exports", {"resource": "acme"})
    call("GET", f"{v1}/checkpoints", query={"limit": "1"})
    call("GET", f"{v1}/sealed", query={"start": "0", "limit": "2"})
    call("GET", f"{v1}/inclusion", query={"seq": "0", "size": "4"})
    call("GET", f"{v1}/consistency", query={"old": "3", "size": "4"})


def _bases(recorder: Recorder, folder: Path) -> None:
    call, v1 = recorder.call, "/api/v1"
    record = fingerprint(open_checkpoint(tiny_base(folder / "base", layers=1)))
    body = {"record": record.model_dump(mode="json"), "names": [BASE]}
    base = call("POST", f"{v1}/bases", body).json["id"]
    weights = (folder / "base" / "model.safetensors").read_bytes()
    digest = str(Digest.of(weights))
    call("GET", f"{v1}/bases/{base}/blobs/{digest}")
    upload = call("POST", f"{v1}/bases/{base}/uploads", {"digest": digest, "size": len(weights)}).json
    _send(recorder.server, upload, weights)
    files = {"files": [{"path": "model.safetensors", "sha256": digest, "size": len(weights)}]}
    call("PUT", f"{v1}/bases/{base}/files", files)
    call("GET", f"{v1}/bases/{base}/files/model.safetensors", headers={"Range": "bytes=0-7"})
    call("PATCH", f"{v1}/bases/{base}", {"visibility": "public"})
    call("GET", f"{v1}/bases")
    call("GET", f"{v1}/bases/find", query={"key": BASE})
    call("GET", f"{v1}/bases/like/{record.architecture}")
    call("GET", f"{v1}/bases/{base}/record")


def _send(server: Server, upload: dict[str, Any], data: bytes) -> None:
    headers = {"Upload-Offset": "0", "Upload-Size": str(len(data)), "Content-Type": BYTES}
    sent = server.call("PATCH", f"/api/v1/uploads/{upload['id']}", data, headers=headers)
    assert sent.status == 200, sent.body
    done = {"offset": len(data), "size": len(data)}
    assert server.call("POST", f"/api/v1/uploads/{upload['id']}/finish", done).status == 204


def _first_push(recorder: Recorder, folder: Path) -> None:
    """Pushes as a client of another language does: uploads, then a manifest."""
    call, at = recorder.call, "/api/v1/adapters/acme/tone"
    call("POST", "/api/v1/adapters", {"name": "acme/tone", "visibility": "private"})
    source = tiny_lora(folder / "first", layers=1)
    entries = []
    for path in sorted(source.iterdir()):
        data = path.read_bytes()
        digest = str(Digest.of(data))
        call("GET", f"{at}/blobs/{digest}")
        upload = call("POST", f"{at}/uploads", {"digest": digest, "size": len(data)}).json
        call("GET", "/api/v1/uploads")
        call(
            "PATCH",
            f"/api/v1/uploads/{upload['id']}",
            data,
            headers={
                "Upload-Offset": "0",
                "Upload-Size": str(len(data)),
                "Content-Type": BYTES,
            },
            example="(the bytes of the file)",
        )
        call("POST", f"/api/v1/uploads/{upload['id']}/finish", {"offset": len(data), "size": len(data)})
        entries.append({"path": path.name, "sha256": digest, "size": len(data)})
    unwanted = call("POST", f"{at}/uploads", {"digest": f"sha256:{'0' * 64}", "size": 10}).json
    call("DELETE", f"/api/v1/uploads/{unwanted['id']}")
    manifest = json.dumps({"files": entries, "schema": 1}, sort_keys=True, separators=(",", ":"))
    body = {
        "manifest": base64.b64encode(manifest.encode()).decode(),
        "options": {"alias": "prod", "metrics": {"accuracy": 0.81}},
    }
    call("POST", f"{at}/revisions", body)
    parts = [json.dumps(body).encode(), *(path.read_bytes() for path in sorted(source.iterdir()))]
    call(
        "POST",
        f"{at}/revisions/with-files",
        join_parts(parts),
        headers={"Content-Type": BYTES},
        example="(the JSON document and the bytes of the files, each after its length)",
    )
    call(
        "POST",
        f"{at}/blobs",
        join_parts(parts[1:]),
        headers={"Content-Type": BYTES},
        example="(the bytes of the files, each after its length)",
    )


def _commits(recorder: Recorder) -> None:
    call, at = recorder.call, "/api/v1/adapters/acme/tone"
    manifest = recorder.server.call("GET", f"{at}/revisions/{_revision(recorder, 1)}/manifest").body
    call("GET", f"{at}/commits")
    call("GET", f"{at}/commits/find", query={"revision": "main"})
    call("POST", f"{at}/branches", {"name": "trial", "at": "main"})
    note = {"title": "Back to the first weights"}
    call(
        "POST",
        f"{at}/commits",
        {"branch": "trial", "manifest": base64.b64encode(manifest).decode(), "note": note},
    )
    call("POST", f"{at}/commits/squash", {"branch": "trial", "note": {"title": "One commit"}})
    call("POST", f"{at}/tags", {"name": "first", "at": "main", "message": "The first that was served."})
    call("GET", f"{at}/references")
    call("DELETE", f"{at}/tags/first")
    call("DELETE", f"{at}/branches/trial")


def _revision(recorder: Recorder, number: int) -> str:
    return str(recorder.server.call("GET", f"/api/v1/adapters/acme/tone/versions/{number}").json["digest"])


def _measure(server: Server, folder: Path) -> None:
    """Stores what a `weight-statistics` job stores."""
    from adaptry.compute.comparison.statistics import measure_statistics, measure_weight_distance
    from adaptry.compute.comparison.updates import open_updates
    from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
    from adaptry.storage.catalog import weight_measurements

    first, second = (
        open_updates(ParentAdapter(open_dir(folder / name), name)) for name in ("first", "second")
    )
    digests = [server.registry().versions.get(Ref.parse(f"acme/tone@{number}")).digest for number in (1, 2)]
    with server.catalog.write() as tx:
        weight_measurements.store_statistics(tx, digests[1], measure_statistics(second))
        weight_measurements.store_distance(tx, *digests, measure_weight_distance(first, second))


def _evidence(recorder: Recorder, server: Server, at: str) -> None:
    data = b'{"results": {"gsm8k": {"exact_match,strict-match": 0.71}}, "lm_eval_version": "0.4.13"}'
    registry, digest = server.registry(), Digest.of(data)
    upload = registry.uploads.open(AdapterName.parse("acme/tone"), digest, len(data))
    registry.uploads.finish(registry.uploads.append(upload, 0, [data]))
    value = {
        "task": "gsm8k",
        "metric": "exact_match",
        "filter": "strict-match",
        "value": 0.71,
        "stderr": 0.0125,
        "n": 1319,
        "direction": "higher",
    }
    body = {"digest": str(digest), "format": "lm-eval", "harness": "lm-eval", "values": [value]}
    recorder.call("POST", f"{at}/versions/2/evidence", body)
    listed = recorder.call("GET", f"{at}/versions/2/evidence", query={"task": "gsm8k", "limit": "1"})
    by_id = f"/api/v1/evidence/{listed.json['items'][0]['id']}"
    recorder.call("GET", by_id)
    recorder.call("GET", f"{by_id}/files")
    recorder.call("GET", f"{by_id}/files/file")
    recorder.call("POST", f"{by_id}/withdrawal", {"reason": "measured without the chat template"})
    _posted_results(recorder)


def _posted_results(recorder: Recorder) -> None:
    at, data = "/api/v1/namespaces/acme/results", lm_eval_results("./out")
    body = {"path": RESULTS, "content": base64.b64encode(data).decode()}
    posted = recorder.call("POST", at, body).json["id"]
    recorder.call("GET", at, query={"limit": "1"})
    recorder.call("GET", f"{at}/own")
    recorder.call("GET", f"/api/v1/results/{posted}")
    recorder.call("GET", f"/api/v1/results/{posted}/file")
    recorder.call("POST", f"/api/v1/results/{posted}/attachment", {"ref": "acme/tone@2"})
    wrong = recorder.server.call("POST", at, body).json["id"]
    recorder.call("DELETE", f"/api/v1/results/{wrong}")


def _workers(recorder: Recorder, digest: str) -> None:
    call, at = recorder.call, "/api/v1/adapters/acme/tone"
    resident = {
        "name": "acme/tone",
        "digest": digest,
        "served_as": "acme/tone@prod",
        "condition": "serving",
        "since": "2026-11-02T09:30:00Z",
    }
    report = {"worker": "gpu-7", "engine": "vllm", "version": "0.32.0", "names": ["acme/tone@prod"]}
    call("POST", "/api/v1/workers", {**report, "residents": [resident]})
    call("GET", "/api/v1/workers")
    call("GET", "/api/v1/workers/gpu-7")
    call("GET", f"{at}/versions/2/residents")
    call("GET", f"{at}/versions/2/residents/summary")
    first = _revision(recorder, 1)
    rollout = call("POST", f"{at}/rollouts", {"alias": "prod", "to": first, "steps": [10, 50, 100]})
    call("GET", f"{at}/rollouts")
    call(
        "PATCH",
        f"{at}/rollouts/prod",
        {"to": "abort", "reason": "answers are worse"},
        headers={"If-Match": f'"{rollout.json["generation"]}"'},
    )
    recorder.server.call("POST", "/api/v1/workers", {**report, "residents": None})
    call("PUT", "/api/v1/workers/gpu-7/gone", {"reason": "the machine was returned to its owner"})
    call("DELETE", "/api/v1/workers/gpu-7")


def _jobs(recorder: Recorder) -> None:
    call, v1 = recorder.call, "/api/v1"
    order = {"kind": "combine", "task": {"inputs": ["acme/tone@1", "acme/tone@2=0.5"], "to": "acme/both"}}
    job = call("POST", f"{v1}/jobs", order).json["id"]
    call("GET", f"{v1}/jobs")
    call("GET", f"{v1}/jobs/{job}")
    call("GET", f"{v1}/jobs/{job}/log")
    call("POST", f"{v1}/jobs/{job}/cancel")
    call("POST", f"{v1}/jobs/{job}/retry")
    call("GET", f"{v1}/runners")
    call("PUT", f"{v1}/schedules/nightly", {"cron": "0 3 * * *", "order": {"kind": "verify", "task": {}}})
    call("GET", f"{v1}/schedules")
    call("DELETE", f"{v1}/schedules/nightly")


def _match(template: str, path: str) -> dict[str, str] | None:
    names = re.findall(r"\{(\w+)\}", template)
    pattern = re.sub(
        r"\\\{(\w+)\\\}",
        lambda m: "(.+)" if m[1] in ("path", "branch", "tag") else "([^/]+)",
        re.escape(template),
    )
    found = re.fullmatch(pattern, path)
    return dict(zip(names, found.groups(), strict=True)) if found else None


def _shown(answer: RawResponse) -> object:
    """The body as an example: JSON, text, or a placeholder for other bytes."""
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("application/json"):
        return _shorter(answer.json)
    if kind.startswith("text/plain"):
        return "\n".join(answer.body.decode().splitlines()[:6]) + "\n"
    return "(the bytes of the file)"


def _shorter(value: Any) -> Any:
    """Shortens long tables and lists. (`Any`: JSON.)"""
    if isinstance(value, dict):
        return {key: _shorter(inner) for key, inner in itertools.islice(value.items(), _LONG)}
    return (
        [_shorter(inner) for inner in value[:3]] if isinstance(value, list) and len(value) > _LONG else value
    )


def _scrub(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    text = _TIME.sub("2026-11-02T09:30:00Z", json.dumps(found))
    for pattern, same in _RANDOM:
        text = re.sub(pattern, same, text)
    scrubbed: dict[str, dict[str, Any]] = json.loads(text)
    return scrubbed


def settings_in(folder: Path) -> ServerSettings:
    """The settings of a server on which all operations succeed."""
    provider = SsoSettings("https://login.example.com", "adaptry")
    return ServerSettings(
        data=folder / "data", allow_outgoing=("127.0.0.0/8",), send_webhooks=False, sso=provider
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(settings_in(folder)) as server:
            found = record(Recorder(server), folder)
    EXAMPLES.write_text(json.dumps(dict(sorted(found.items())), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
