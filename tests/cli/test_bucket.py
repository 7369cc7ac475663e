"""The command line over a registry whose files are in a bucket of a real S3 server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_every_command_finds_the_bucket_and_doctor_checks_it(
    run: Callable[..., Any],
    answer: Callable[..., Any],
    out: Path,
    s3_place: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("ADAPTRY_BLOBS", s3_place)
    run("push", "./out", "acme/tone")
    monkeypatch.delenv("ADAPTRY_BLOBS")
    run("pull", "acme/tone", "--to", "./pulled")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "pulled" / weights).read_bytes() == (out / weights).read_bytes()
    found = {one["what"]: one["verdict"] for one in answer("doctor")}
    assert found["bucket"] == "ok"


def test_doctor_reports_why_a_bucket_cannot_be_used(
    run: Callable[..., Any], out: Path, s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTRY_BLOBS", s3_place)
    run("push", "./out", "acme/tone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = run("doctor", code=1)
    assert "refuses these credentials" in " ".join(result.output.split())


def test_doctor_checks_the_bucket_of_a_registry_before_it_is_created(
    run: Callable[..., Any], answer: Callable[..., Any], s3_place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTRY_BLOBS", s3_place.replace("adaptry-tests", "no-such-bucket"))
    assert "there is no bucket no-such-bucket" in " ".join(run("doctor", code=1).output.split())
    monkeypatch.setenv("ADAPTRY_BLOBS", s3_place)
    assert {one["what"]: one["verdict"] for one in answer("doctor")}["bucket"] == "ok"
