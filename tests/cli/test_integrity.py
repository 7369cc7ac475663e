"""`adaptry verify` and `adaptry repair` as commands: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("out")


def spoil(home: Path) -> None:
    """Changes a few bits of the stored weights."""
    path = max((home / "blobs" / "sha256").rglob("*"), key=lambda one: one.stat().st_size * one.is_file())
    data = bytearray(path.read_bytes())
    data[-3] ^= 5
    data[-11] ^= 5
    path.write_bytes(data)


def test_a_sound_registry_has_no_damage(run) -> None:
    run("push", "./out", "acme/tone")
    assert "no damage found" in run("verify").stderr
    assert run("verify", "--read-data", "--json").stdout.strip() == "[]"


def test_damage_is_found_shown_and_repaired_from_the_pushed_folder(run, home: Path) -> None:
    run("push", "./out", "acme/tone")
    spoil(home)
    run("verify")
    (found,) = json.loads(run("verify", "--read-data", "--json", code=1).stdout)
    assert found["kind"] == "file"
    assert "acme/tone" in found["where"]
    assert "damaged" in run("ls", "acme/tone").stdout
    assert "damaged" in run("show", "acme/tone").stdout
    assert "adaptry repair" in run("pull", "acme/tone", code=7).stderr
    assert "adaptry repair" in run("doctor", code=1).stdout
    plan = run("repair", "--from", "./out", "--dry-run", code=1).stdout
    assert plan.startswith("replace ")
    assert run("repair", "--from", "./out").stdout.startswith("replaced adapter_model.safetensors")
    run("verify", "--read-data")
    run("doctor")


def test_irreparable_damage_is_reported_with_exit_code_1_until_the_files_are_pushed_again(
    run, home: Path
) -> None:
    run("push", "./out", "acme/tone")
    spoil(home)
    told = run("repair", "--read-data", code=1).stdout
    assert "push the same files again" in told
    run("verify", code=1)
    run("push", "./out", "acme/tone")
    run("verify", "--read-data")


def test_a_remote_registry_is_verified_by_a_job(run) -> None:
    for command in ("verify", "repair"):
        told = run(command, "--registry", "http://127.0.0.1:9", code=2).stderr
        assert "adaptry jobs submit verify --wait" in told


def test_an_invalid_source_is_refused_before_any_work(run) -> None:
    run("push", "./out", "acme/tone")
    assert "--from" in run("repair", "--from", "./nowhere", code=3).stderr
    assert "begins with http" in run("repair", "--from", "htps://host", code=2).stderr
