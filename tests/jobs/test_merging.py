"""A merge job writes the same bytes as `adaptry merge`, whichever runners compute its parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import NotFound
from adaptry.jobs import merge_jobs
from adaptry.jobs.context import JobContext, Processors
from adaptry.jobs.dispatch import run_handler
from adaptry.operations.base_registry import open_base
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.job_types.tasks import parse_task
from adaptry.registry.records import PushOptions
from adaptry.storage.local import LocalRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.runners import (
    MERGE,
    WHOLE_MERGE,
    RunnerProcess,
    is_stopped,
    make_merge_registry,
    start_runner,
    wait_for_job,
    wait_until,
)
from adaptry.testing.samples import tiny_lora

TORCH = JobOrder(kind="merge", task={**MERGE.task, "dtype": "BF16", "max_shard_size": 1 << 20})


@pytest.mark.parametrize(
    ("order", "pieces"),
    [(MERGE, 2), (WHOLE_MERGE, 1), pytest.param(TORCH, 1, marks=pytest.mark.heavy)],
    ids=["divided", "in one piece", "cast into one file"],
)
def test_the_stored_base_is_what_the_command_writes(
    busy: LocalRegistry, data: Path, tmp_path: Path, order: JobOrder, pieces: int
) -> None:
    job = busy.jobs.submit(order)

    assert RunnerProcess(data, "--once").wait() == 0

    done = busy.jobs.get(job.id)
    assert (done.state, done.error) == ("done", None)
    assert done.pieces == pieces
    weights = [file for file in done.result["files"] if file["path"].endswith(".safetensors")]
    assert len(weights) == (1 if order is TORCH else 2)
    assert done.stage is not None
    assert done.stage.done == done.stage.total > 0
    written = merged_by_command(data, tmp_path / "written", order)
    assert stored_files(busy, tmp_path) == written
    assert busy.bases.get("acme/merged").id == open_and_identify(tmp_path / "written")


@pytest.mark.parametrize("order", [MERGE, WHOLE_MERGE], ids=["divided", "in one piece"])
def test_a_piece_has_the_same_bytes_with_one_and_with_two_processors(
    busy: LocalRegistry, tmp_path: Path, order: JobOrder
) -> None:
    task, before = parse_task("merge", order.task), dict[str, object]()
    made = []
    for count in (1, 2):
        context = JobContext(
            busy, before, "cpu", tmp_path, {}, lambda *at: None, lambda text: None, Processors(count)
        )
        first = run_handler("merge", task, "start", context)
        before["start"] = first.result
        made.append([run_handler("merge", task, piece.name, context).result for piece in first.pieces])

    assert made[0] == made[1]


@pytest.mark.parametrize("order", [MERGE, WHOLE_MERGE], ids=["divided", "in one piece"])
def test_a_job_whose_result_would_be_infinite_fails_and_stores_no_base(
    busy: LocalRegistry, data: Path, order: JobOrder
) -> None:
    task = {**order.task, "inputs": ["acme/tone@1=1e9"], "dtype": "F16"}
    job = busy.jobs.submit(JobOrder(kind="merge", task=task))

    assert RunnerProcess(data, "--once").wait() == 0

    failed = busy.jobs.get(job.id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert "infinite or NaN values that the base does not have" in failed.error.message
    with pytest.raises(NotFound):
        busy.bases.get("acme/merged")


def test_a_job_whose_updates_cancel_fails(busy: LocalRegistry, data: Path) -> None:
    task = {**WHOLE_MERGE.task, "inputs": ["acme/tone@1", "acme/tone@1=-1"]}
    job = busy.jobs.submit(JobOrder(kind="merge", task=task))

    assert RunnerProcess(data, "--once").wait() == 0

    failed = busy.jobs.get(job.id)
    assert failed.error is not None
    assert "would change nothing" in failed.error.message


@pytest.mark.parametrize("order", [MERGE, WHOLE_MERGE], ids=["divided", "in one piece"])
def test_a_job_warns_of_updates_that_are_lost_to_rounding(
    busy: LocalRegistry, data: Path, tmp_path: Path, order: JobOrder
) -> None:
    order = JobOrder(kind="merge", task={**order.task, "inputs": ["acme/tone@1=1e-4"], "dtype": "BF16"})
    job = busy.jobs.submit(order)

    assert RunnerProcess(data, "--once").wait() == 0

    texts = [line.text for line in busy.jobs.log(job.id).items]
    assert any("warning: in 4 of 4 weights, most of the update was lost" in text for text in texts), texts
    record = json.loads(stored_files(busy, tmp_path)["adaptry_merge.json"])
    assert len(record["lost_to_rounding"]) == record["baked"] == 4
    assert 0 < record["changed_elements"] < record["elements"] / 10


@pytest.mark.parametrize(
    "how", [{}, {"dtype": "BF16"}, {"divide": True}], ids=["large", "computed by torch", "on request"]
)
def test_each_file_is_a_piece(
    busy: LocalRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: dict[str, object]
) -> None:
    if not how:
        monkeypatch.setattr(merge_jobs, "_ONE_PIECE_LIMIT", 1000)
    task = parse_task("merge", {**WHOLE_MERGE.task, **how})
    context = JobContext(busy, {}, "cpu", tmp_path, {}, lambda *at: None, lambda text: None)
    assert len(run_handler("merge", task, "start", context).pieces) == 2


def test_a_merge_that_is_repeated_after_its_registration_uses_the_pinned_version(
    busy: LocalRegistry, data: Path, tmp_path: Path
) -> None:
    task = {**WHOLE_MERGE.task, "inputs": ["acme/tone"]}
    job = busy.jobs.submit(JobOrder(kind="merge", task=task))
    with start_runner(data, armed="stop:merge.adopted") as killed:
        wait_until(lambda: is_stopped(killed.process.pid), "the base to be registered")
    other = open_dir(tiny_lora(tmp_path / "other", base_name="org/tiny", seed=9))
    push(busy, other, "acme/tone", options=PushOptions(force_reason="another version"))

    assert RunnerProcess(data, "--once").wait() == 0

    done = busy.jobs.get(job.id)
    assert (done.state, done.error) == ("done", None)


def test_two_runners_share_the_parts_on_postgresql(
    postgres: PostgresServer, data: Path, tmp_path: Path
) -> None:
    registry = make_merge_registry(data, tmp_path / "scraps", catalog=postgres.database())
    job = registry.jobs.submit(MERGE)

    with start_runner(data), start_runner(data):
        assert wait_for_job(registry, job.id).state == "done"

    assert stored_files(registry, tmp_path) == merged_by_command(data, tmp_path / "written", MERGE)
    registry.close()


def stored_files(registry: LocalRegistry, tmp_path: Path) -> dict[str, bytes]:
    checkpoint = open_base(registry, "acme/merged", cache=tmp_path / "fetched")
    return {path.name: path.read_bytes() for path in checkpoint.folder.iterdir()}


def merged_by_command(data: Path, folder: Path, order: JobOrder) -> dict[str, bytes]:
    words = ["acme/tone@1", "--base", "org/tiny", "-o", str(folder), "--registry", str(data)]
    if "dtype" in order.task:
        words += ["--dtype", "bfloat16", "--max-shard-size", "1MiB"]
    subprocess.run([sys.executable, "-m", "adaptry_cli", "merge", *words], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def open_and_identify(folder: Path) -> object:
    from adaptry.bases.fingerprinting import fingerprint
    from adaptry.bases.hf_folder import open_checkpoint

    return fingerprint(open_checkpoint(folder)).id
