"""A worker's settings from environment variables, and the errors about invalid ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.core.errors import Invalid, InvalidRef
from adaptry.core.settings import AdaptrySettings
from adaptry.integrations.serving.settings import WorkerSettings, open_worker_cache, open_worker_registry
from adaptry.integrations.serving.vllm import register


@pytest.mark.parametrize("where", [None, "./registry", "/srv/registry"])
def test_a_worker_reaches_servers_only(where: str | None) -> None:
    with pytest.raises(Invalid, match="set ADAPTRY_URL"):
        open_worker_registry(AdaptrySettings(registry=where))


def test_the_environment_sets_the_plugins_cache_folder_and_size(tmp_path: Path) -> None:
    environ = {"ADAPTRY_CACHE": str(tmp_path / "cache"), "ADAPTRY_CACHE_SIZE": "2GB"}

    cache = open_worker_cache(AdaptrySettings.from_env(environ))

    assert (cache.root, cache.size) == (tmp_path / "cache", 2_000_000_000)


@pytest.mark.parametrize("seconds", ["soon", "0", "-1", "nan", "1e9"])
def test_a_malformed_pause_is_refused(seconds: str) -> None:
    with pytest.raises(Invalid, match="ADAPTRY_WATCH_SECONDS"):
        WorkerSettings.from_env({"ADAPTRY_WATCH_SECONDS": seconds})


def test_names_to_preload_or_to_pin_are_refs_or_stacks_of_them() -> None:
    names = "acme/tone@prod, acme/facts acme/tone+acme/facts=0.5"
    found = WorkerSettings.from_env({"ADAPTRY_PRELOAD": names, "ADAPTRY_PIN": "acme/tone,acme/tone"})
    assert found.preload == ("acme/tone@prod", "acme/facts", "acme/tone+acme/facts=0.5")
    assert found.pin == ("acme/tone",)
    for variable in ("ADAPTRY_PRELOAD", "ADAPTRY_PIN"):
        with pytest.raises(InvalidRef, match="tone"):
            WorkerSettings.from_env({variable: "tone"})


@pytest.mark.parametrize(
    "environ", [{}, {"ADAPTRY_URL": "http://registry"}, {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}]
)
def test_without_a_registry_or_runtime_loading_the_plugin_does_nothing(environ: dict[str, str]) -> None:
    code = (
        "from adaptry.integrations.serving.vllm import register; register(); import sys; print('vllm.lora' in"
        " sys.modules)"
    )

    run = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )

    assert run.stdout == "False\n"


def test_the_plugin_reports_that_vllm_may_not_load_adapters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """This also applies with several API servers: vLLM does not start if it may load adapters."""
    monkeypatch.setenv("ADAPTRY_URL", "http://127.0.0.1:1")
    monkeypatch.delenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", raising=False)
    register()
    assert "set VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and start one API server" in caplog.text


def test_the_plugin_reports_that_the_rust_front_end_bypasses_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ADAPTRY_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    register()
    assert "adaptry follow" in caplog.text
