"""The registry of a small team after a few weeks, for the pages' tests and screenshots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest, MemberChange, TokenRequest
from adaptry.registry.interface import Registry
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.publishers import IssuerRequest, PublisherRequest
from adaptry.registry.quotas import QuotaRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange, VersionInfo
from adaptry.registry.rollouts import RolloutPlan
from adaptry.registry.webhooks import WebhookRequest
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.testing.samples import tiny_base, tiny_lora

TONE = AdapterName.parse("acme/support-tone")
SQL = AdapterName.parse("acme/sql-writer")
LEGAL = AdapterName.parse("research/legal-summaries")
BASE = "org/small-llama"
POLICY = """alias: prod
require:
  - eval("support_qa", "acc").value >= 0.81
  - noninferior("support_qa", "acc", vs="prod", margin=0.01)
  - fits("vllm@0.33,max_lora_rank=64")
  - approvals("release") >= 2
"""
CARD = """---
license: apache-2.0
tags: [support]
---
# Support tone

Answers customers in the voice of the support team: short, friendly, **no promises**.

| split | examples |
|---|---:|
| train | 8,400 |
| test | 600 |

![How the loss fell](loss.png)

1. Trained for three epochs.
2. Evaluated with `lm-eval`.

> Do not use it for legal questions.
"""


def fill(registry: Registry, folder: Path, image: bytes | None = None) -> None:
    """Pushes adapters, moves aliases, recalls a version, and reports workers."""
    register_base(registry, open_checkpoint(tiny_base(folder / "base", vocab=64)), (BASE,), store=True)
    register_base(
        registry, open_checkpoint(tiny_base(folder / "tuned", vocab=64, seed=7)), ("org/small-llama-tuned",)
    )
    scores = (0.712, 0.764, 0.751, 0.803, 0.821)
    for number, score in enumerate(scores, 1):
        rank = 8 if number < 4 else 16
        targets = ("q_proj", "v_proj") if number < 4 else ("q_proj", "k_proj", "v_proj", "o_proj")
        config = {"use_rslora": True} if number == 5 else {}
        made = tiny_lora(
            folder / f"tone-{number}", rank=rank, targets=targets, seed=number, base_name=BASE, config=config
        )
        (made / "README.md").write_text(CARD if image else CARD.replace("![How the loss fell](loss.png)", ""))
        if image:
            (made / "loss.png").write_bytes(image)
        _push(registry, made, TONE, {"accuracy": score, "loss": round(1.9 - score, 3)})
        _measure(registry, TONE, number, score)
    about = "Answers customers in the voice of the support team."
    registry.adapters.edit(TONE, AdapterEdit(description=about, tags=("support", "english")))
    one, two, three, four, five = (_version(registry, TONE, number) for number in range(1, 6))
    alias = registry.aliases.move(TONE, "prod", two.digest, None)
    alias = registry.aliases.move(TONE, "prod", three.digest, alias.generation)
    _report(registry, "gpu-1", TONE, three, "serving")
    _report(registry, "gpu-2", TONE, three, "serving")
    alias = registry.aliases.move(TONE, "prod", four.digest, alias.generation)
    registry.aliases.move(TONE, "staging", five.digest, None)
    old = StateChange(state="deprecated", reason="two points behind version 4", successor=f"{TONE}@4")
    registry.versions.set_state(TONE, one.digest, old, 0)
    leak = StateChange(state="revoked", reason="repeats names from the training data", successor=f"{TONE}@4")
    registry.versions.set_state(TONE, three.digest, leak, 0)
    _report(registry, "gpu-1", TONE, four, "serving")
    for number in (1, 2):
        made = tiny_lora(folder / f"sql-{number}", rank=4 * number, seed=20 + number, base_name=BASE)
        _push(registry, made, SQL, {"exec_match": 0.55 + number / 20}, "prod" if number == 1 else None)
    registry.rollouts.start(SQL, "prod", _version(registry, SQL, 2).digest, RolloutPlan(steps=(10, 50, 100)))
    _report(registry, "gpu-3", SQL, _version(registry, SQL, 1), "serving")
    foreign = tiny_lora(folder / "legal", rank=2, seed=40, hidden=32, base_name="elsewhere/large-model")
    _push(registry, foreign, LEGAL, {})
    mixed = tiny_lora(folder / "mixed", rank=16, seed=50, targets=("q_proj", "v_proj"), base_name=BASE)
    recipe = {"operation": "combine", "method": "ties", "weights": [0.7, 0.3], "density": 0.5}
    push(
        registry,
        open_dir(mixed),
        AdapterName.parse("acme/support-sql"),
        base=BASE,
        options=PushOptions(metrics={"accuracy": 0.79, "exec_match": 0.61}),
        parents=(four.digest, _version(registry, SQL, 2).digest),
        recipe=recipe,
    )
    registry.principals.create_group("release")
    registry.policies.set(PolicyRequest(scope=str(TONE), text=POLICY))


def fill_settings(registry: Registry) -> None:
    """People, service accounts, a policy, a webhook that is disabled, a publisher and limits, which the
    settings of `acme` show. Requires an administrator's registry.
    """
    for name in ("mia", "tom", "lena"):
        registry.principals.create("user", name)
    for name in ("mia", "lena"):
        registry.principals.set_membership("release", name, True)
    for member in ({"principal": "mia", "role": "owner"}, {"principal": "tom", "role": "contributor"}):
        registry.grants.set_member("acme", MemberChange.model_validate(member))
    registry.grants.set_member("acme", MemberChange(group="release", role="maintainer"))
    registry.grants.set_accountable("acme", "mia")
    registry.principals.create("service-account", "acme/nightly")
    registry.grants.add(
        GrantRequest(
            principal="acme/nightly", permission="alias.move", resource=str(TONE), conditions=("alias!=prod",)
        )
    )
    registry.tokens.create(TokenRequest(name="pipeline", principal="acme/nightly"))
    made = registry.webhooks.add(
        WebhookRequest(namespace="acme", url="https://hooks.example.org/adapters", kinds=("alias.moved",))
    )
    registry.webhooks.set_enabled(made.webhook.id, False)
    registry.publishers.add_issuer(
        IssuerRequest(
            name="github",
            url="https://token.actions.githubusercontent.com",
            kind="github",
            audience="https://adapters.example.org",
        )
    )
    registry.publishers.add(
        TONE,
        PublisherRequest(
            issuer="github",
            project_id="483920184",
            owner_id="9919",
            workflow=".github/workflows/release.yml",
            environment="release",
        ),
    )
    registry.quotas.set(QuotaRequest(scope="namespace", name="acme", bytes=200 * 10**9, versions=10_000))


def _push(
    registry: Registry, made: Path, name: AdapterName, metrics: Mapping[str, float], alias: str | None = None
) -> None:
    push(registry, open_dir(made), name, options=PushOptions(metrics=dict(metrics), alias=alias))


def _version(registry: Registry, name: AdapterName, number: int) -> VersionInfo:
    return registry.version(f"{name}@{number}")


def _measure(registry: Registry, name: AdapterName, number: int, score: float) -> None:
    """Adds evidence as from an evaluation, and a training run's values at its steps."""
    values = [
        EvidenceValue(task="support_qa", metric="acc", value=score, stderr=0.016, n=600, direction="higher"),
        EvidenceValue(
            task="politeness",
            metric="f1",
            value=score - 0.05,
            stderr=0.02,
            n=400,
            direction="higher",
        ),
    ]
    values += [
        EvidenceValue(metric="train_loss", value=round(2.2 - score - step / 900, 4), step=step)
        for step in range(100, 600, 100)
    ]
    document = json.dumps([one.model_dump(mode="json") for one in values]).encode()
    digest = Digest.of(document)
    upload = registry.uploads.open(name, digest, len(document))
    registry.uploads.finish(registry.uploads.append(upload, 0, [document]))
    file = EvidenceFile(digest=digest, format="lm-eval", values=tuple(values))
    registry.evidence.add(Ref.parse(f"{name}@{number}"), file)


def _report(registry: Registry, worker: str, name: AdapterName, version: VersionInfo, condition: str) -> None:
    loaded = ResidentReport.model_validate(
        {
            "name": name,
            "digest": version.digest,
            "served_as": f"{name}@prod",
            "condition": condition,
            "since": version.created_at,
        }
    )
    report = WorkerReport(
        worker=worker,
        engine="vllm",
        version="0.33.0",
        base=BASE,
        url=f"http://{worker}:8000",
        slots=8,
        lease=86_400,
        residents=(loaded,),
    )
    registry.workers.report(report)
