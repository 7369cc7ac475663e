"""Weights are inspected before a version is admitted, once per file; if the inspection fails, the files stay
stored.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.inspection import process as processes
from adaptry.adapters.inspection.inspector import TIMEOUT, Inspector, WeightsSource
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.processes.bounded import ProcessFailed
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.operations.transfer.drafts import push_draft
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.commit_info import CommitNote
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry, context
from adaptry.storage.local.uploads import LocalUploads
from adaptry.storage.maintenance import gc
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
ONCE_MORE = RetryPolicy(tries=2, first_wait=0.0)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
SPOILED = {KEY: ("F32", (16, 4), b"\x00\x00\xc0\x7f" * 64)}


class Counting(Inspector):
    """Counts the files that are inspected."""

    def __init__(self) -> None:
        super().__init__()
        self.files = 0

    def inspect(
        self,
        tensors: Mapping[str, TensorInfo],
        source: WeightsSource,
        tenant: str = "",
        timeout: float = TIMEOUT,
    ) -> WeightsInspection:
        self.files += 1
        return super().inspect(tensors, source, tenant, timeout)


@pytest.fixture(autouse=True)
def not_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each registry starts its own processes, as in a program."""
    monkeypatch.setattr(context, "Inspector", Inspector)


@pytest.fixture
def registry(tmp_path: Path) -> Iterable[LocalRegistry]:
    opened = open_local(tmp_path / "registry")
    opened.context.inspector = Counting()
    yield opened
    opened.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterable[Server]:
    with running_server(ServerSettings(data=tmp_path / "served")) as made:
        yield made


@pytest.fixture
def adapter(tmp_path: Path) -> Adapter:
    """An adapter whose weights are too large to be measured without a child process."""
    return open_dir(tiny_lora(tmp_path / "lora", hidden=256))


def inspected(registry: LocalRegistry) -> int:
    assert isinstance(registry.context.inspector, Counting)
    return registry.context.inspector.files


def broken(*arguments: object, **options: object) -> None:
    raise ProcessFailed("the process could not be started: no more processes")


def test_a_file_is_inspected_once_however_often_it_is_pushed(
    registry: LocalRegistry, adapter: Adapter
) -> None:
    push(registry, adapter, TONE)
    push(registry, adapter, TONE)
    push(registry, adapter, "acme/other")
    push_draft(registry, adapter, TONE, "run.step-1", CommitNote(title="the same weights"))
    registry.versions.inspect_tensors(Ref(TONE))
    assert inspected(registry) == 1


def test_a_push_that_cannot_be_inspected_creates_no_version_and_keeps_its_files(
    registry: LocalRegistry, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(processes, "start_bounded", broken)
        with pytest.raises(Unavailable, match=r"could not be inspected.*try again"):
            push(registry, adapter, TONE, retry=ONCE_MORE)
    assert registry.adapters.list().items == ()
    monkeypatch.setattr(LocalUploads, "append", lambda *_: pytest.fail("the files were kept"))
    assert push(registry, adapter, TONE).version.number == 1


def test_an_impossible_inspection_is_a_503_over_http_and_can_be_retried(
    server: Server, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = server.registry()
    with monkeypatch.context() as patched:
        patched.setattr(processes, "start_bounded", broken)
        with pytest.raises(Unavailable, match="could not be inspected"):
            push(remote, adapter, TONE, retry=ONCE_MORE)
    assert push(remote, adapter, TONE).version.number == 1


def test_older_versions_are_shown_as_not_inspected(
    registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptry.storage.local.admission.weights_findings", lambda *_: [])
    push(registry, open_dir(tiny_lora(tmp_path / "old", extra=SPOILED)), TONE)
    monkeypatch.undo()
    with sqlite3.connect(tmp_path / "registry" / "catalog.sqlite") as database:
        database.execute("DELETE FROM inspections")
    before = registry.versions.detail(Ref(TONE))
    assert before.inspection is None
    assert "weights_nan" not in {finding.code for finding in before.report.findings}

    found = registry.versions.inspect_tensors(Ref(TONE), limit=200)

    assert sum(tensor.nan for tensor in found.items) == 64
    after = registry.versions.detail(Ref(TONE))
    assert after.inspection is not None
    assert after.inspection.nan == 64
    assert "weights_nan" in {finding.code for finding in after.report.findings}
    assert after.version.findings == len(after.report.findings)


def test_a_result_of_an_older_measurement_is_ignored(
    registry: LocalRegistry, adapter: Adapter, tmp_path: Path
) -> None:
    push(registry, adapter, TONE)
    with sqlite3.connect(tmp_path / "registry" / "catalog.sqlite") as database:
        database.execute("UPDATE inspections SET inspection = 0")
    assert registry.versions.detail(Ref(TONE)).inspection is None
    registry.versions.inspect_tensors(Ref(TONE))
    assert registry.versions.detail(Ref(TONE)).inspection is not None
    assert inspected(registry) == 2


def test_a_client_inspects_weights_before_it_uploads_them(
    registry: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalRegistry, "is_on_this_machine", False)
    monkeypatch.setattr(LocalUploads, "open", lambda *_: pytest.fail("nothing is sent"))
    spoiled = open_dir(tiny_lora(tmp_path / "spoiled", extra=SPOILED))
    with pytest.raises(CheckFailed, match=r"NaN in 1 tensor.*weights_nan"):
        push(registry, spoiled, TONE)
    with pytest.raises(CheckFailed, match=r"NaN in 1 tensor.*weights_nan"):
        push_draft(registry, spoiled, TONE, "run.step-1", CommitNote(title="diverged"))
    assert registry.adapters.list().items == ()


def test_if_the_clients_inspection_fails_the_registry_decides(
    registry: LocalRegistry, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unable(adapter: Adapter) -> None:
        raise Unavailable("no more processes here")

    monkeypatch.setattr(LocalRegistry, "is_on_this_machine", False)
    monkeypatch.setattr("adaptry.operations.transfer.early_inspection.check_weights", unable)
    assert push(registry, adapter, TONE).version.number == 1


def test_results_of_an_inspection_are_deleted_with_the_files(
    registry: LocalRegistry, adapter: Adapter, tmp_path: Path
) -> None:
    push(registry, adapter, TONE)
    registry.adapters.delete(TONE)
    for _ in range(4):  # marked, taken, left, gone
        gc.collect_garbage(registry, grace=timedelta(0))
    with sqlite3.connect(tmp_path / "registry" / "catalog.sqlite") as database:
        assert database.execute("SELECT count(*) FROM inspections").fetchone() == (0,)
