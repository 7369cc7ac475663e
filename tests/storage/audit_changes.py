"""Every change that a registry supports, one call each, with the audit log entry that it must record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptry.adapters.adapter import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.evidence.values import EvidenceFile, EvidenceValue
from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.access import GrantRequest, InvitationRequest, MemberChange, TokenRequest
from adaptry.registry.audit_log import AuditEntry, AuditFilter
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.publishers import IssuerRequest, PublisherRequest
from adaptry.registry.quotas import QuotaRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.registry.sso import ExternalUserRequest, ProviderGroupRequest
from adaptry.registry.webhooks import SecretRotation, WebhookRequest
from adaptry.registry.workers import WorkerReport
from adaptry.testing.contract.inbox import RESULTS, lm_eval_results
from adaptry.testing.file_by_file import push_file_by_file
from adaptry.testing.samples import tiny_base, tiny_lora

TONE, VOICE = AdapterName.parse("acme/tone"), AdapterName.parse("acme/voice")
CONVERT = JobOrder(kind="convert", task={"source": "acme/tone", "to": "acme/plain"})
NOTE = CommitNote(title="Squashed")


@dataclass(frozen=True)
class Recorded:
    """An entry that a change must record: its action, its subject, and some of its values."""

    action: str
    what: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)

    def matches(self, entry: AuditEntry) -> bool:
        has_before = self.before.items() <= dict(entry.before or {}).items()
        has_after = self.after.items() <= dict(entry.after or {}).items()
        return (entry.action, entry.what) == (self.action, self.what) and has_before and has_after


Step = tuple[str, tuple[Recorded, ...]]
"""The method of a role that was just called (`aliases.move`), and what is to be recorded of it."""


def recorded(action: str, what: str, before: object = None, after: object = None) -> Recorded:
    return Recorded(action, what, _map(before), _map(after))


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def entries(registry: Registry) -> list[AuditEntry]:
    """All entries, oldest first."""
    found, cursor = [], None
    while True:
        page = registry.audit.list(AuditFilter(), cursor, 200, oldest_first=True)
        found, cursor = [*found, *page.items], page.next
        if cursor is None:
            return found


def fill(registry: Registry, count: int) -> None:
    """Makes this many entries."""
    registry.adapters.create(TONE, AdapterEdit())
    for number in range(count - 1):
        registry.adapters.edit(TONE, AdapterEdit(description=f"description {number}"))


def make_every_change(registry: Registry, folder: Path) -> Iterator[Step]:
    """Makes one change after another; yields after each."""
    yield from _adapter_changes(registry)
    yield from _version_changes(registry, folder)
    yield from _alias_changes(registry)
    yield from _branch_changes(registry)
    yield from _base_changes(registry, folder)
    yield from _state_changes(registry)
    yield from _people_changes(registry)
    yield from _job_changes(registry)
    registry.adapters.delete(VOICE)
    yield "adapters.delete", (recorded("adapter.delete", "acme/voice"),)
    yield from _worker_changes(registry)
    yield from _webhook_changes(registry)
    registry.audit.begin_export(AuditFilter(actor="ann"))
    yield "audit.begin_export", (recorded("audit.export", "audit", after={"actor": "ann"}),)


def _adapter_changes(registry: Registry) -> Iterator[Step]:
    registry.adapters.create(TONE, AdapterEdit())
    yield "adapters.create", (recorded("adapter.create", "acme/tone", after={"visibility": "private"}),)
    registry.adapters.edit(TONE, AdapterEdit(description="calm", visibility="public"))
    before = {"description": "", "visibility": "private"}
    after = {"description": "calm", "visibility": "public"}
    yield "adapters.edit", (recorded("adapter.edit", "acme/tone", before, after),)
    registry.adapters.create(AdapterName.parse("acme/other"), AdapterEdit())
    yield "adapters.create", (recorded("adapter.create", "acme/other"),)
    registry.adapters.rename(AdapterName.parse("acme/other"), VOICE)
    renamed = recorded("adapter.rename", "acme/voice", {"name": "acme/other"}, {"name": "acme/voice"})
    yield "adapters.rename", (renamed,)


def _version_changes(registry: Registry, folder: Path) -> Iterator[Step]:
    first = push_file_by_file(registry, open_dir(tiny_lora(folder / "one", seed=1)), TONE).version
    pushed = recorded("version.push", "acme/tone@1", after={"digest": str(first.digest)})
    yield "versions.put", (pushed,)
    options = PushOptions(metrics={"accuracy": 0.5})
    push(registry, open_dir(tiny_lora(folder / "two", seed=2)), TONE, options=options)
    metric = recorded("metric.log", "acme/tone@2", after={"accuracy": 0.5})
    yield "versions.put_with_files", (recorded("version.push", "acme/tone@2"), metric)
    registry.metrics.log(Ref.parse("acme/tone@1"), {"loss": 2.0})
    yield "metrics.log", (recorded("metric.log", "acme/tone@1", after={"loss": 2.0}),)
    results = b"{}"
    registry.uploads.finish(
        registry.uploads.append(registry.uploads.open(TONE, Digest.of(results), 2), 0, [results])
    )
    values = (EvidenceValue(metric="accuracy", value=0.7),)
    file = EvidenceFile(digest=Digest.of(results), format="lm-eval", values=values)
    registry.evidence.add(Ref.parse("acme/tone@1"), file)
    yield "evidence.add", (recorded("evidence.add", "acme/tone@1", after={"file": str(file.digest)}),)
    (found,) = registry.evidence.list(Ref.parse("acme/tone@1"), metric="accuracy").items
    registry.evidence.withdraw(found.id, WithdrawalRequest(reason="another template"))
    withdrawn = recorded("evidence.withdraw", "acme/tone@1", after={"reason": "another template"})
    yield "evidence.withdraw", (withdrawn,)
    yield from _inbox_changes(registry)


def _inbox_changes(registry: Registry) -> Iterator[Step]:
    kept = recorded("results.keep", "acme", after={"path": RESULTS})
    id = registry.inbox.post("acme", RESULTS, lm_eval_results("./out")).id
    yield "inbox.post", (kept,)
    registry.inbox.attach(id, Ref.parse("acme/tone@1"))
    yield (
        "inbox.attach",
        (
            recorded("evidence.add", "acme/tone@1"),
            recorded("results.attach", "acme", after={"version": "acme/tone@1"}),
        ),
    )
    id = registry.inbox.post("acme", RESULTS, lm_eval_results("./out", value=0.25)).id
    yield "inbox.post", (recorded("results.keep", "acme"),)
    registry.inbox.discard(id)
    yield "inbox.discard", (recorded("results.discard", "acme", after={"path": RESULTS}),)


def _alias_changes(registry: Registry) -> Iterator[Step]:
    first, second = (registry.version(f"acme/tone@{number}") for number in (1, 2))
    seen = registry.aliases.move(TONE, "prod", first.digest, None)
    after = {"digest": str(first.digest), "generation": seen.generation}
    yield "aliases.move", (recorded("alias.move", "acme/tone@prod", after=after),)
    registry.aliases.move(TONE, "prod", second.digest, seen.generation)
    before = {"digest": str(first.digest), "number": 1}
    moved = recorded("alias.move", "acme/tone@prod", before, {"digest": str(second.digest)})
    yield "aliases.move", (moved,)
    going = registry.rollouts.start(TONE, "prod", first.digest, RolloutPlan(steps=(50,)))
    begun = recorded("rollout.start", "acme/tone@prod", {"number": 2}, {"percent": 50})
    yield "rollouts.start", (begun,)
    registry.rollouts.change(TONE, "prod", RolloutChange(to="abort", reason="too slow"), going.generation)
    aborted = recorded("rollout.abort", "acme/tone@prod", after={"reason": "too slow"})
    yield "rollouts.change", (aborted,)
    (alias,) = registry.aliases.list(TONE)
    registry.aliases.remove(TONE, "prod", alias.generation)
    yield "aliases.remove", (recorded("alias.remove", "acme/tone@prod", {"digest": str(second.digest)}),)


def _branch_changes(registry: Registry) -> Iterator[Step]:
    registry.commits.create_branch(TONE, "draft")
    yield "commits.create_branch", (recorded("branch.create", "acme/tone@draft"),)
    draft = registry.commits.get(TONE, "draft")
    tree = registry.commits.tree(TONE, draft.digest)
    other = registry.commits.tree(TONE, registry.version("acme/tone@1").digest)
    assert tree != other
    registry.commits.put(TONE, "draft", other.to_bytes(), CommitNote(title="Back"), draft.id)
    yield "commits.put", (recorded("commit.create", "acme/tone@draft"),)
    registry.commits.squash(TONE, "draft", NOTE)
    yield "commits.squash", (recorded("branch.squash", "acme/tone@draft"),)
    registry.commits.delete_branch(TONE, "draft")
    yield "commits.delete_branch", (recorded("branch.delete", "acme/tone@draft"),)
    registry.commits.create_tag(TONE, "first")
    yield "commits.create_tag", (recorded("tag.create", "acme/tone@first"),)
    registry.commits.delete_tag(TONE, "first")
    yield "commits.delete_tag", (recorded("tag.delete", "acme/tone@first"),)


def _base_changes(registry: Registry, folder: Path) -> Iterator[Step]:
    record = fingerprint(open_checkpoint(tiny_base(folder / "base")))
    registry.bases.put(record, ("org/other",))
    name = str(record.id)
    yield "bases.put", (recorded("base.register", name, after={"names": "org/other"}),)
    version = registry.version("acme/tone@1")
    registry.versions.bind_base(TONE, version.digest, record.id)
    yield "versions.bind_base", (recorded("version.bind", "acme/tone@1"),)
    registry.bases.edit(record.id, BaseEdit(visibility="public"))
    yield "bases.edit", (recorded("base.edit", name, after={"visibility": "public"}),)
    upload = registry.uploads.open(record.id, Digest.of(b"{}"), 2)
    upload = registry.uploads.append(upload, 0, [b"{}"])
    registry.uploads.finish(upload)
    file = {"path": "config.json", "sha256": str(Digest.of(b"{}")), "size": 2}
    registry.bases.store(record.id, (_file_entry(file),))
    yield "bases.store", (recorded("base.store", name, after={"bytes": 2}),)
    open_upload = registry.uploads.open(TONE, Digest.of(b"never sent"), 10)
    registry.uploads.drop(open_upload.id)
    yield "uploads.drop", (recorded("upload.drop", "acme/tone", {"size": 10}),)


def _file_entry(fields: Mapping[str, Any]) -> Any:
    from adaptry.core.manifest import FileEntry

    return FileEntry.model_validate(fields)


def _state_changes(registry: Registry) -> Iterator[Step]:
    def change(state: str, **more: Any) -> None:
        seen = registry.version("acme/tone@1")
        fresh = StateChange.model_validate({"state": state, **more})
        registry.versions.set_state(TONE, seen.digest, fresh, seen.state_generation)

    for action, state, was in (
        ("version.deprecate", "deprecated", "active"),
        ("version.yank", "yanked", "deprecated"),
        ("version.quarantine", "quarantined", "yanked"),
        ("version.restore", "active", "quarantined"),
        ("version.revoke", "revoked", "active"),
    ):
        change(state, reason="leaks names")
        yield (
            "versions.set_state",
            (recorded(action, "acme/tone@1", {"state": was}, {"reason": "leaks names"}),),
        )


def _people_changes(registry: Registry) -> Iterator[Step]:
    registry.principals.create("user", "ann")
    yield "principals.create", (recorded("principal.create", "ann", after={"kind": "user"}),)
    registry.principals.create("service-account", "acme/ci")
    yield "principals.create", (recorded("principal.create", "acme/ci"),)
    registry.principals.set_disabled("ann", True)
    yield "principals.set_disabled", (recorded("principal.disable", "ann", {"disabled": False}),)
    registry.principals.set_disabled("ann", False)
    yield "principals.set_disabled", (recorded("principal.enable", "ann", after={"disabled": False}),)
    registry.principals.create_group("ml-team")
    yield "principals.create_group", (recorded("group.create", "ml-team"),)
    registry.principals.set_membership("ml-team", "ann", True)
    yield "principals.set_membership", (recorded("group.add", "ml-team", after={"principal": "ann"}),)
    registry.principals.set_membership("ml-team", "ann", False)
    yield "principals.set_membership", (recorded("group.remove", "ml-team", {"principal": "ann"}),)
    registry.sso.map_group(ProviderGroupRequest(claim="ml-engineers", group="ml-team"))
    yield "sso.map_group", (recorded("sso.map", "ml-team", after={"claim": "ml-engineers"}),)
    registry.principals.delete_group("ml-team")
    yield (
        "principals.delete_group",
        (recorded("sso.unmap", "ml-team", {"claim": "ml-engineers"}), recorded("group.delete", "ml-team")),
    )
    request = GrantRequest(
        principal="ann", permission="alias.move", resource="acme", conditions=("alias!=prod",)
    )
    granted = registry.grants.add(request)
    after = {"principal": "ann", "permission": "alias.move", "conditions": "alias!=prod"}
    yield "grants.add", (recorded("grant.add", "acme", after=after),)
    registry.grants.remove(granted.id)
    yield "grants.remove", (recorded("grant.remove", "acme", {"permission": "alias.move"}),)
    registry.grants.set_member("acme", MemberChange(principal="ann", role="viewer"))
    yield "grants.set_member", (recorded("member.set", "acme", after={"member": "ann", "role": "viewer"}),)
    registry.grants.set_member("acme", MemberChange(principal="ann", role="owner"))
    changed = recorded("member.set", "acme", {"role": "viewer"}, {"role": "owner"})
    yield "grants.set_member", (changed,)
    registry.grants.set_accountable("acme", "ann")
    yield "grants.set_accountable", (recorded("member.account", "acme", after={"user": "ann"}),)
    registry.principals.invite(InvitationRequest(name="ann"))
    yield "principals.invite", (recorded("invitation.create", "ann"),)
    registry.quotas.set(QuotaRequest(scope="namespace", name="acme", bytes=1 << 40))
    limits = {"scope": "namespace", "bytes": 1 << 40}
    yield "quotas.set", (recorded("quota.set", "acme", after=limits),)
    registry.quotas.remove(QuotaSubject("namespace", "acme"))
    yield "quotas.remove", (recorded("quota.remove", "acme", limits),)
    yield from _publisher_changes(registry)
    yield from _sso_changes(registry)
    text = "alias: prod\nrequire:\n- state() == 'active'\n"
    policy = registry.policies.set(PolicyRequest(scope="acme", text=text))
    values = {"version": 1, "digest": str(policy.digest)}
    yield "policies.set", (recorded("policy.set", "acme@prod", after=values),)
    registry.policies.remove("acme", "prod")
    yield "policies.remove", (recorded("policy.remove", "acme@prod", values),)
    token = registry.tokens.create(TokenRequest(name="laptop", principal="ann"))
    yield "tokens.create", (recorded("token.create", "ann", after={"name": "laptop", "token": token.id}),)
    registry.tokens.revoke(token.id)
    yield "tokens.revoke", (recorded("token.revoke", "ann", {"name": "laptop", "token": token.id}),)


def _publisher_changes(registry: Registry) -> Iterator[Step]:
    url, roles = "https://ci.example", registry.publishers
    roles.add_issuer(IssuerRequest(name="ci", url=url, kind="github", audience="https://registry.example"))
    yield "publishers.add_issuer", (recorded("issuer.add", "ci", after={"url": url, "kind": "github"}),)
    request = PublisherRequest(issuer="ci", project_id="1", owner_id="2", workflow="w.yml", branch="main")
    added = roles.add(TONE, request)
    account = recorded("principal.create", "acme/publisher-1", after={"kind": "service-account"})
    after = {"issuer": "ci", "project_id": "1", "branch": "main", "account": added.account}
    yield "publishers.add", (account, recorded("publisher.add", "acme/tone", after=after))
    roles.remove(TONE, added.id)
    yield "publishers.remove", (recorded("publisher.remove", "acme/tone", after),)
    roles.remove_issuer("ci")
    yield "publishers.remove_issuer", (recorded("issuer.remove", "ci", {"url": url}),)


def _sso_changes(registry: Registry) -> Iterator[Step]:
    registry.principals.create_group("staff")
    yield "principals.create_group", (recorded("group.create", "staff"),)
    registry.sso.map_group(ProviderGroupRequest(claim="all-staff", group="staff"))
    yield "sso.map_group", (recorded("sso.map", "staff", after={"claim": "all-staff"}),)
    registry.sso.unmap_group("all-staff")
    yield "sso.unmap_group", (recorded("sso.unmap", "staff", {"claim": "all-staff"}),)
    registry.sso.link_user(ExternalUserRequest(user="ann", issuer="https://login.example", subject="00u1"))
    yield "sso.link_user", (recorded("sso.link", "ann", after={"subject": "00u1"}),)


def _job_changes(registry: Registry) -> Iterator[Step]:
    job = registry.jobs.submit(CONVERT)
    yield "jobs.submit", (recorded("job.submit", job.id, after={"kind": "convert"}),)
    registry.jobs.cancel(job.id)
    yield "jobs.cancel", (recorded("job.cancel", job.id, {"state": "queued"}, {"state": "cancelled"}),)
    registry.jobs.retry(job.id)
    yield "jobs.retry", (recorded("job.retry", job.id, {"state": "cancelled"}, {"state": "queued"}),)
    registry.jobs.schedule("nightly", "0 3 * * *", CONVERT)
    yield "jobs.schedule", (recorded("schedule.set", "nightly", after={"cron": "0 3 * * *"}),)
    registry.jobs.unschedule("nightly")
    yield "jobs.unschedule", (recorded("schedule.delete", "nightly", {"cron": "0 3 * * *"}),)


def _worker_changes(registry: Registry) -> Iterator[Step]:
    registry.workers.report(WorkerReport(worker="gpu-1", engine="vllm"))
    yield "workers.report", ()
    registry.workers.forget("gpu-1")
    yield "workers.forget", (recorded("worker.forget", "gpu-1"),)


def _webhook_changes(registry: Registry) -> Iterator[Step]:
    request = WebhookRequest(namespace="acme", url="https://ci.example.com/hook?key=1", kinds=("alias.*",))
    hook = registry.webhooks.add(request).webhook.id
    after = {"webhook": hook, "host": "ci.example.com", "kinds": "alias.*"}
    yield "webhooks.add", (recorded("webhook.add", "acme", after=after),)
    message = registry.webhooks.test(hook).message
    of_message = {"webhook": hook, "message": message}
    yield "webhooks.test", (recorded("webhook.test", "acme", after=of_message),)
    registry.webhooks.redeliver(hook, message)
    yield "webhooks.redeliver", (recorded("webhook.redeliver", "acme", after=of_message),)
    registry.webhooks.rotate(hook, SecretRotation(hours=1))
    yield "webhooks.rotate", (recorded("webhook.rotate", "acme", after={"webhook": hook}),)
    registry.webhooks.set_enabled(hook, False)
    yield "webhooks.set_enabled", (recorded("webhook.disable", "acme", after={"webhook": hook}),)
    registry.webhooks.set_enabled(hook, True)
    yield "webhooks.set_enabled", (recorded("webhook.enable", "acme", after={"webhook": hook}),)
    registry.webhooks.remove(hook)
    yield "webhooks.remove", (recorded("webhook.remove", "acme", {"webhook": hook}),)


CHANGING = frozenset(
    {
        "adapters.create", "adapters.delete", "adapters.edit", "adapters.rename",
        "aliases.move", "aliases.remove",
        "audit.begin_export",
        "bases.edit", "bases.put", "bases.store",
        "commits.create_branch", "commits.create_tag", "commits.delete_branch", "commits.delete_tag",
        "commits.put", "commits.squash",
        "evidence.add", "evidence.withdraw",
        "inbox.attach", "inbox.discard", "inbox.post",
        "grants.add", "grants.remove", "grants.set_accountable", "grants.set_member",
        "jobs.cancel", "jobs.retry", "jobs.schedule", "jobs.submit", "jobs.unschedule",
        "metrics.log",
        "policies.remove", "policies.set",
        "principals.create", "principals.create_group", "principals.delete_group",
        "principals.invite", "principals.set_disabled", "principals.set_membership",
        "publishers.add", "publishers.add_issuer", "publishers.remove", "publishers.remove_issuer",
        "quotas.remove", "quotas.set",
        "rollouts.change", "rollouts.start",
        "sso.link_user", "sso.map_group", "sso.unmap_group",
        "tokens.create", "tokens.revoke",
        "uploads.drop",
        "webhooks.add", "webhooks.redeliver", "webhooks.remove", "webhooks.rotate", "webhooks.set_enabled",
        "webhooks.test",
        "versions.bind_base", "versions.put", "versions.put_with_files", "versions.set_state",
        "workers.forget", "workers.report",
    }
)  # fmt: skip
"""Methods whose calls `make_every_change` makes."""
TESTED_ELSEWHERE = frozenset({"policies.approve", "policies.withdraw_approval", "workers.declare_gone"})
"""Approvals take a caller with a name; a worker is declared gone after its lease only, which takes another
clock.
"""
NOT_RECORDED = frozenset({"uploads.open", "uploads.append", "uploads.finish", "versions.count_download"})
"""Bytes that no version has yet, which the push that needs them records; and a count."""
READING = frozenset(
    {
        "adapters.get", "adapters.history", "adapters.list", "adapters.renamed_to",
        "aliases.get", "aliases.list",
        "audit.checkpoint", "audit.checkpoints", "audit.list", "audit.prove_consistency",
        "audit.prove_inclusion", "audit.sealed",
        "bases.get", "bases.list", "bases.of_architecture", "bases.read_file", "bases.record",
        "commits.get", "commits.list", "commits.references", "commits.tree",
        "events.read",
        "evidence.files", "evidence.get", "evidence.list", "evidence.read_file",
        "files.has", "files.read",
        "inbox.get", "inbox.list", "inbox.posted", "inbox.read",
        "webhooks.deliveries", "webhooks.get", "webhooks.list",
        "grants.authorize", "grants.explain", "grants.list", "grants.members",
        "jobs.get", "jobs.list", "jobs.log", "jobs.runners", "jobs.schedules",
        "metrics.list",
        "policies.approvals", "policies.evaluate", "policies.history", "policies.list",
        "policies.promotion", "policies.promotions",
        "principals.groups", "principals.list",
        "publishers.list", "publishers.list_issuers",
        "quotas.list", "quotas.require_room",
        "rollouts.list",
        "sso.list_groups", "sso.list_users",
        "tokens.list",
        "uploads.list",
        "versions.detail", "versions.get", "versions.inspect_tensors", "versions.list", "versions.search",
        "versions.weight_distance", "versions.weight_statistics",
        "workers.get", "workers.list", "workers.residents", "workers.resident_summary",
    }
)  # fmt: skip
