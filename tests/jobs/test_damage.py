"""A verify job that finds damage succeeds, and the exit code of the command that waited for it reports the
damage.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptry.core.refs import Ref
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.damage import change_last_byte
from adaptry.testing.runners import MERGE, RunnerProcess
from adaptry.testing.warm_python import run_warm
from adaptry_cli.main import main


def test_a_waiting_caller_of_a_verify_job_gets_the_damage(busy: LocalRegistry, data: Path) -> None:
    entry = busy.versions.detail(Ref.parse("acme/tone@1")).manifest.file("adapter_model.safetensors")
    assert entry is not None
    change_last_byte(busy, entry.sha256)
    runner = RunnerProcess(data)
    try:
        asked = ("jobs", "submit", "verify", "--wait", "--registry", str(data))
        found = CliRunner().invoke(main, asked)
    finally:
        runner.stop()
    assert found.exit_code == 1, found.output
    assert f"{entry.sha256.brief} of acme/tone: its bytes have changed" in found.stderr
    assert busy.jobs.get(found.stdout.strip()).state == "done"
    assert busy.versions.get(Ref.parse("acme/tone@1")).is_damaged


def test_a_merge_uses_no_bytes_that_are_known_to_be_damaged(busy: LocalRegistry, data: Path) -> None:
    entry = next(one for one in busy.bases.get("org/tiny").stored if one.path.endswith(".safetensors"))
    change_last_byte(busy, entry.sha256)
    verify(busy.catalog, busy.blobs)
    job = busy.jobs.submit(MERGE)
    assert RunnerProcess(data, "--once").wait() == 0
    failed = busy.jobs.get(job.id)
    assert (failed.state, failed.error is not None) == ("failed", True)
    assert failed.error is not None
    assert "is damaged in the registry" in failed.error.message


def test_recomputed_files_of_a_merge_replace_damaged_ones(busy: LocalRegistry, data: Path) -> None:
    busy.jobs.submit(MERGE)
    assert RunnerProcess(data, "--once").wait() == 0
    merged = busy.bases.get("acme/merged")
    change_last_byte(busy, next(one for one in merged.stored if one.path.endswith(".safetensors")).sha256)
    verify(busy.catalog, busy.blobs)
    again = busy.jobs.submit(MERGE.model_copy(update={"task": {**MERGE.task, "to": "acme/again"}}))
    assert RunnerProcess(data, "--once").wait() == 0
    assert busy.jobs.get(again.id).state == "done"
    assert busy.bases.get("acme/again").id == merged.id
    assert verify(busy.catalog, busy.blobs) == ()


@pytest.mark.heavy
def test_a_jobs_database_locked_by_another_process_is_not_a_bug(busy: LocalRegistry, data: Path) -> None:
    assert RunnerProcess(data, "--once").wait() == 0
    with closing(sqlite3.connect(data / "jobs.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        command = [sys.executable, "-m", "adaptry_cli", "work", "--once", "--data", str(data)]
        found = run_warm(command, check=False, capture_output=True, text=True, timeout=300)
    assert found.returncode == 6
    assert "another process has locked it for too long" in found.stderr
    assert "Traceback" not in found.stderr
