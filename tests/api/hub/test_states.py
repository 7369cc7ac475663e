"""Lifecycle states over the Hub protocol: clients are warned about a version that is not active, or are
refused its files with the reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.lifecycle import State
from adaptry.core.refs import Ref
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_api.testing import RawResponse, Server

from .clients import run_client

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def version(registry: HttpRegistry, tone: Adapter) -> VersionInfo:
    return push(registry, tone, "acme/tone").version


@pytest.fixture
def reader(server: Server) -> str:
    return server.token("ron", "reader", ("acme",))


def put(registry: HttpRegistry, state: State) -> None:
    change_state(registry, Ref.parse("acme/tone@1"), StateChange(state=state, reason="leaks addresses"))


def resolve(server: Server, path: str, token: str, method: str = "GET", revision: str = "v1") -> RawResponse:
    return server.call(method, f"/acme/tone/resolve/{revision}/{path}", token=token)


def test_a_hub_client_is_warned_about_deprecated_and_yanked_versions(
    server: Server, registry: HttpRegistry, version: VersionInfo, reader: str
) -> None:
    for state in ("deprecated", "yanked"):
        put(registry, state)
        answer = resolve(server, WEIGHTS, reader)
        assert answer.status == 200
        assert f"acme/tone@1 is {state}: leaks addresses" in answer.headers["X-HF-Warning"]


@pytest.mark.parametrize("state", ["quarantined", "revoked"])
@pytest.mark.parametrize("revision", ["v1", "main"])
def test_a_hub_client_gets_the_reason_instead_of_a_withdrawn_versions_files(
    server: Server, registry: HttpRegistry, version: VersionInfo, reader: str, state: State, revision: str
) -> None:
    put(registry, state)
    for method in ("GET", "HEAD"):
        for path in (CONFIG, WEIGHTS):
            answer = resolve(server, path, reader, method, revision)
            assert answer.status == 403
            assert f"acme/tone@1 is {state}: leaks addresses" in answer.headers["X-Error-Message"]
    shown = server.call("GET", f"/api/models/acme/tone/revision/{revision}", token=reader)
    assert {entry["rfilename"] for entry in shown.json["siblings"]} == {CONFIG, WEIGHTS}
    assert f"is {state}" in shown.headers["X-HF-Warning"]
    assert server.call("GET", "/api/models?author=acme&full=true", token=reader).status == 200


def test_the_real_client_is_warned_then_refused_and_shows_the_reason(
    server: Server, registry: HttpRegistry, version: VersionInfo, reader: str, tmp_path: Path
) -> None:
    put(registry, "deprecated")
    code = 'answer = Path(hf_hub_download("acme/tone", "adapter_config.json", force_download=True)).is_file()'
    got, told = run_client(server, code, tmp_path, token=reader)
    assert got
    assert "acme/tone@1 is deprecated: leaks addresses" in told
    put(registry, "revoked")
    code = (
        'answer = said(HfHubHTTPError, lambda: hf_hub_download("acme/tone", "adapter_config.json",'
        ' revision="v1"))'
    )
    refused, _ = run_client(server, code, tmp_path / "other", token=reader)
    assert "acme/tone@1 is revoked: leaks addresses" in refused


def test_a_version_that_was_recalled_is_followed_by_another_through_the_hub(
    server: Server, registry: HttpRegistry, version: VersionInfo, tmp_path: Path
) -> None:
    put(registry, "revoked")
    folder = str(tiny_lora(tmp_path / "better", seed=2))
    writer = server.token("ada", "writer", ("acme",))
    code = 'api.upload_folder(repo_id="acme/tone", folder_path=folder)'
    run_client(server, code, tmp_path, token=writer, folder=folder)
    assert registry.versions.get(Ref.parse("acme/tone")).number == 2
    assert resolve(server, WEIGHTS, writer, revision="main").status == 200


def test_a_merged_model_of_a_withdrawn_version_is_refused_for_everyone(
    server: Server, registry: HttpRegistry, tmp_path: Path
) -> None:
    base_registry.register_base(registry, open_checkpoint(tiny_base(tmp_path / "base")), ("org/tiny",))
    push(registry, open_dir(tiny_lora(tmp_path / "lora")), "acme/tone")
    assert server.call("GET", "/api/models/acme/tone.merged").status == 200
    put(registry, "revoked")
    refused = server.call("GET", "/api/models/acme/tone.merged")
    assert (refused.status, "is revoked: leaks addresses" in refused.headers["X-Error-Message"]) == (
        403,
        True,
    )
