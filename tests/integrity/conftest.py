"""A registry with rows of every kind, for audits."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.adapters.content import FolderContent
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.operations.transfer.file_upload import upload
from adaptry.operations.version_state import change_state
from adaptry.registry.aliases import MoveRequest
from adaptry.registry.base_info import BaseEdit
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.evidence import WithdrawalRequest
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.registry.workers import RecallProof, ResidentReport, WorkerReport
from adaptry.storage.backup import create, restore
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.gc import collect_garbage
from adaptry.storage.tokens import create_token, list_tokens, revoke_token
from adaptry.testing.contract.evidence import add_results
from adaptry.testing.samples import tiny_base, tiny_lora

TONE = AdapterName.parse("acme/tone")
OLD = AdapterName.parse("acme/old")
GONE = AdapterName.parse("acme/gone")
VOICE = AdapterName.parse("other/voice")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def lora(tmp_path: Path) -> Callable[[int], Path]:
    return lambda seed: tiny_lora(tmp_path / f"lora-{seed}", seed=seed)


@pytest.fixture
def busy(folder: Path, tmp_path: Path, lora: Callable[[int], Path]) -> LocalRegistry:
    registry = open_local(folder)
    fill(registry, tmp_path, lora)
    return registry


def fill(registry: LocalRegistry, tmp_path: Path, lora: Callable[[int], Path]) -> None:
    base = tiny_base(tmp_path / "base")
    register_base(registry, open_checkpoint(base), names=("org/tiny",), store=True, full=True)
    for seed in (1, 2, 3):
        options = PushOptions(metrics={"loss": 1.0 / seed}, alias="prod" if seed < 3 else None)
        push(registry, open_dir(lora(seed)), TONE, options=options)
    registry.metrics.log(Ref.parse("acme/tone@1"), {"loss": 0.25, "accuracy": 0.5})
    add_results(registry)
    add_results(registry, Ref.parse("acme/tone@1"))
    for whole_file in (False, True):
        newest = registry.evidence.list(Ref.parse("acme/tone@1")).items[0]
        registry.evidence.withdraw(
            newest.id, WithdrawalRequest(reason="wrong template", whole_file=whole_file)
        )
    registry.adapters.edit(TONE, AdapterEdit(description="It sets the tone", tags=("warm", "kind")))
    change_state(
        registry,
        Ref.parse("acme/tone@1"),
        StateChange(state="deprecated", reason="it stutters", successor="acme/tone@2"),
    )
    prod = next(one for one in registry.aliases.list(TONE) if one.alias == "prod")
    third = registry.versions.get(Ref.parse("acme/tone@3"))
    registry.rollouts.start(TONE, "prod", third.digest, RolloutPlan(steps=(10, 50, 100)))
    registry.rollouts.change(TONE, "prod", RolloutChange(to="advance"), 1)
    text = "alias: stage\nrequire:\n- state() == 'deprecated'\n"
    registry.policies.set(PolicyRequest(scope="acme/tone", text=text))
    registry.aliases.move(TONE, "stage", third.digest, None, MoveRequest(override="for a test"))
    registry.aliases.move(TONE, "brief", third.digest, None)
    registry.aliases.remove(TONE, "brief", 1)
    assert prod.number == 2
    _commits(registry, tmp_path, lora)
    push(registry, open_dir(lora(4)), OLD)
    registry.adapters.rename(OLD, VOICE)
    push(registry, open_dir(lora(5)), GONE)
    registry.adapters.delete(GONE)
    _others(registry, tmp_path)


def _commits(registry: LocalRegistry, tmp_path: Path, lora: Callable[[int], Path]) -> None:
    head = registry.versions.detail(Ref.parse("acme/tone@3")).manifest
    readme = tmp_path / "readme"
    readme.mkdir()
    (readme / "README.md").write_text("How to use it\n")
    data = (readme / "README.md").read_bytes()
    digest = Digest.of(data)
    upload(registry, TONE, FolderContent(readme, ["README.md"]), "README.md", digest)
    files = {entry.path: (entry.size, entry.sha256) for entry in head.files}
    files["README.md"] = (len(data), digest)
    tree = Manifest.of(files, base=head.base)
    registry.commits.put(TONE, "main", tree.to_bytes(), CommitNote(title="Say how", message="as asked"))
    registry.commits.create_branch(TONE, "trial")
    registry.commits.put(TONE, "trial", head.to_bytes(), CommitNote(title="Without it"))
    registry.commits.create_tag(TONE, "first", "main", "the first")


def _others(registry: LocalRegistry, tmp_path: Path) -> None:
    """Workers, jobs, tokens, uploads, and what a sweep has marked."""
    digest = registry.versions.get(Ref.parse("acme/tone@2")).digest
    seen = datetime.now(UTC)
    registry.workers.report(
        WorkerReport(
            worker="gpu-1",
            engine="vllm",
            version="0.11",
            base="org/tiny",
            lease=30,
            slots=4,
            residents=(
                ResidentReport(
                    name=TONE, digest=digest, served_as="acme/tone@prod", condition="serving", since=seen
                ),
            ),
        )
    )
    job = registry.jobs.submit(JobOrder(kind="verify", task={}))
    registry.jobs.cancel(job.id)
    registry.jobs.submit(JobOrder(kind="gc", task={}))
    registry.jobs.schedule("nightly", "30 2 * * *", JobOrder(kind="verify", task={}))
    create_token(registry.catalog, "ci", "writer", ("acme",), seen + timedelta(days=1))
    revoke_token(registry.catalog, list_tokens(registry.catalog)[0].id)
    stray = tmp_path / "stray"
    stray.mkdir()
    (stray / "README.md").write_text("Nobody's\n")
    data = (stray / "README.md").read_bytes()
    upload(registry, VOICE, FolderContent(stray, ["README.md"]), "README.md", Digest.of(data))
    collect_garbage(registry)
    registry.uploads.append(registry.uploads.open(TONE, Digest.of(b"never"), 100), 0, [b"ne"])
    dropped = registry.uploads.open(VOICE, Digest.of(b"dropped"), 100)
    registry.uploads.append(dropped, 0, [b"dr"])
    registry.uploads.drop(dropped.id)
    base = registry.bases.get("org/tiny").id
    registry.bases.edit(base, BaseEdit(visibility="public"))
    registry.bases.edit(base, BaseEdit(visibility="internal"))


@pytest.fixture
def restored(busy: LocalRegistry, folder: Path, tmp_path: Path, lora: Callable[[int], Path]) -> LocalRegistry:
    """The registry in its second epoch, with recalls that the backup lacked, and with new activity."""
    create(busy, tmp_path / "backup")
    third = busy.versions.get(Ref.parse("acme/tone@3"))
    voice = busy.versions.get(Ref.parse("other/voice@1"))
    change_state(busy, Ref.parse("acme/tone@3"), StateChange(state="revoked", reason="it leaks"))
    epoch = busy.catalog.epoch
    proof = epoch.proof(str(VOICE), voice.digest.hex, "revoked")
    push(busy, open_dir(lora(7)), AdapterName.parse("late/comer"))
    busy.close()
    restore(tmp_path / "backup", folder, replace=True)
    registry = open_local(folder)
    registry.workers.report(
        WorkerReport(
            worker="gpu-1",
            engine="vllm",
            recalled=(
                RecallProof(name=VOICE, digest=voice.digest, state="revoked", epoch=epoch.id, proof=proof),
            ),
        )
    )
    assert registry.versions.get(Ref.parse("other/voice@1")).state == "quarantined"
    change_state(registry, Ref.parse("acme/tone@3"), StateChange(state="active", reason="it does not"))
    prod = next(one for one in registry.aliases.list(TONE) if one.alias == "prod")
    registry.rollouts.change(TONE, "prod", RolloutChange(to="abort", reason="enough"), _generation(registry))
    registry.aliases.move(TONE, "prod", third.digest, prod.generation)
    anyway = MoveRequest(override="for a test")
    registry.aliases.move(TONE, "stage", third.digest, _of(registry, "stage"), anyway)
    registry.aliases.move(TONE, "fresh", third.digest, None)
    registry.aliases.move(TONE, "brief", third.digest, None)
    push(registry, open_dir(lora(8)), AdapterName.parse("late/comer"))
    push(registry, open_dir(lora(9)), TONE)
    registry.adapters.rename(VOICE, AdapterName.parse("other/tune"))
    registry.adapters.delete(AdapterName.parse("late/comer"))
    return registry


def _generation(registry: LocalRegistry) -> int:
    (rollout,) = registry.rollouts.list(TONE)
    return rollout.generation


def _of(registry: LocalRegistry, alias: str) -> int:
    return next(one.generation for one in registry.aliases.list(TONE) if one.alias == alias)
