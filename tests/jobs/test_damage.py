"""A verify job that finds damage is done, and the command that waited for it says so with its exit code."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from adaptry.blobs.local import LocalBlobs
from adaptry.local import LocalRegistry
from adaptry.refs import Ref
from adaptry.testing.running import Runner
from adaptry_cli.main import main


def test_who_waits_for_a_verify_job_is_told_what_is_damaged(busy: LocalRegistry, data: Path) -> None:
    entry = busy.detail(Ref.parse("acme/tone@1")).manifest.file("adapter_model.safetensors")
    assert entry is not None
    assert isinstance(busy.blobs, LocalBlobs)
    path = busy.blobs.path_of(entry.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    runner = Runner(data)
    try:
        asked = ("jobs", "submit", "verify", "--wait", "--registry", str(data))
        found = CliRunner().invoke(main, asked)
    finally:
        runner.stop()
    assert found.exit_code == 1, found.output
    assert f"{entry.sha256.brief} of acme/tone: its bytes have changed" in found.stderr
    assert busy.job(found.stdout.strip()).state == "done"
    assert busy.version(Ref.parse("acme/tone@1")).is_damaged
