"""Quotas and the huggingface_hub client: it shows the message, and sends no byte of a refused upload."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from adaptry.core.quotas import QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.registry.quotas import QuotaRequest
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

from .clients import run_client


def hf_upload(server: Server, token: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """`hf upload`, unmodified."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ADAPTRY_"))}
    environment |= {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_TOKEN": token, "NO_COLOR": "1"}
    program = Path(sys.executable).with_name("hf")
    return subprocess.run(
        [program, "upload", "acme/tone", str(folder)], env=environment, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip


def test_hf_upload_shows_whose_quota_is_exceeded_and_the_remedy(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    token = server.token("ann", "writer", ("acme",))
    lora = tiny_lora(tmp_path / "lora")
    quotas = server.registry().quotas
    quotas.set(QuotaRequest(scope="namespace", name="acme", bytes=1000))

    refused = hf_upload(server, token, lora, tmp_path / "home")
    assert refused.returncode != 0
    said = " ".join((refused.stdout + refused.stderr).split())
    assert "the namespace acme may store 1.0 kB and has" in said
    assert "adaptry quota set acme --bytes SIZE" in said

    quotas.remove(QuotaSubject("namespace", "acme"))
    assert hf_upload(server, token, lora, tmp_path / "home").returncode == 0
    assert len(server.registry().versions.list(AdapterName.parse("acme/tone")).items) == 1


def test_a_commit_over_the_version_limit_is_refused_with_the_limit(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    token = server.token("ann", "writer", ("acme",))
    server.registry().quotas.set(QuotaRequest(scope="principal", name="ann", versions=0))

    said, _ = run_client(
        server,
        "api.create_repo('acme/tone')\n"
        "answer = said(HfHubHTTPError, lambda: api.upload_folder(repo_id='acme/tone', folder_path=folder))",
        tmp_path,
        token,
        folder=str(tiny_lora(tmp_path / "lora")),
    )
    assert "ann has 0 versions and may have 0" in said, json.dumps(said)
