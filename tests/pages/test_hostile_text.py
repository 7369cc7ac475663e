"""Text stored by users is escaped on every page that shows it: reasons, workers' reports, tasks and names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.access import TokenRequest
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.registry.webhooks import WebhookRequest
from adaptry.registry.workers import ResidentReport, WorkerProblem, WorkerReport
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
HOSTILE = "\"'><script>alert(7)</script><img src=x onerror=alert(7)>\u202e{{ 7*7 }}"
PLAIN = HOSTILE.replace("\u202e", "")
"""The same without a control character, which some fields refuse."""
RAW = re.compile(r"<script>alert|<img src=x|\u202e|(?<!=)[\"'] on\w+=")
SHOWN = {
    "/": 1,
    f"/{TONE}": 3,
    f"/{TONE}?version=1": 4,
    "/-/fleet": 4,
    f"/-/adapters/{TONE}/1/promote": 1,
    f"/-/aliases/{TONE}/prod": 0,
    f"/-/compare?ref={TONE}@1&ref={TONE}@2": 1,
    "/-/activity": 1,
    "/-/settings/tokens": 1,
    "/-/settings/namespaces/acme/webhooks": 1,
    f"/-/settings/adapters/{TONE}/policies": 1,
    f"/-/combine?ref={TONE}@2&method=%22%3E%3Cscript%3Ealert(7)%3C/script%3E": 0,
    "/?q=%22%3E%3Cscript%3Ealert(7)%3C/script%3E": 1,
    "/-/activity?actor=%22%3E%3Cscript%3Ealert(7)%3C/script%3E": 1,
    "/-/sign-in?next=%22%3E%3Cscript%3Ealert(7)%3C/script%3E": 0,
    "/acme/%3Cscript%3Ealert(7)%3C%2Fscript%3E": 0,
}
"""How often the escaped text is at least on each page."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with running_server(ServerSettings(data=folder / "data")) as started:
        registry = started.registry()
        one, two = (
            push(
                registry,
                open_dir(tiny_lora(folder / str(seed), seed=seed, base_name=f"elsewhere/{seed}")),
                TONE,
                options=PushOptions(metrics={"accuracy": seed / 10}),
            ).version
            for seed in (1, 2)
        )
        registry.adapters.edit(TONE, AdapterEdit(description=HOSTILE))
        registry.aliases.move(TONE, "prod", two.digest, None)
        value = EvidenceValue(task=PLAIN, metric="acc", value=0.5, stderr=0.1, n=9, direction="higher")
        document = json.dumps([value.model_dump(mode="json")]).encode()
        upload = registry.uploads.open(TONE, Digest.of(document), len(document))
        registry.uploads.finish(registry.uploads.append(upload, 0, [document]))
        file = EvidenceFile(digest=Digest.of(document), format="lm-eval", values=(value,))
        for number in (1, 2):
            registry.evidence.add(Ref.parse(f"{TONE}@{number}"), file)
        loaded = ResidentReport(
            name=TONE, digest=one.digest, served_as=HOSTILE, condition="serving", since=one.created_at
        )
        registry.workers.report(
            WorkerReport(
                worker="gpu-1",
                engine=HOSTILE,
                version=HOSTILE,
                base=HOSTILE,
                url=HOSTILE,
                residents=(loaded,),
                problems=(WorkerProblem(served_as=HOSTILE, reason=HOSTILE),),
            )
        )
        registry.versions.set_state(TONE, one.digest, StateChange(state="revoked", reason=HOSTILE), 0)
        registry.tokens.create(TokenRequest(name=PLAIN, principal="root"))
        policy = f'alias: prod\n# {PLAIN}\nrequire:\n  - approvals("release") >= 1\n'
        registry.policies.set(PolicyRequest(scope=str(TONE), text=policy))
        registry.webhooks.add(
            WebhookRequest(namespace="acme", url="https://hooks.example.org/<script>alert(7)</script>")
        )
        yield started


@pytest.mark.parametrize("address", SHOWN)
def test_stored_and_typed_text_is_escaped_wherever_it_is_shown(server: Server, address: str) -> None:
    text = Browser(server).get(address).body.decode()
    assert not RAW.search(text), RAW.search(text)
    assert text.count("&lt;script&gt;alert(7)") >= SHOWN[address]
    assert "{{ 7*7 }}" in text or "{{" not in text, "no template reads what was stored"
