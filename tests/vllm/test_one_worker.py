"""The plugin in a real vLLM is its only worker: what the registry knows about it, that `adaptry follow` and
`adaptry cache gc` respect it, and the status of a recall while the engine is unreachable, killed, declared
gone, and back.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from adaptry.core.errors import StorageFull
from adaptry.integrations.serving import Cache
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server as serving_registry
from adaptry_cli.main import main

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs, move, until

pytestmark = vllm_server.PYTHON.marks

Run = Callable[..., Result]
_SILENCE = 180.0  # seconds: a report is valid for 60, and the machine may be busy


@pytest.fixture
def run(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ADAPTRY_URL", place.server.url)
    monkeypatch.setenv("ADAPTRY_TOKEN", place.server.admin)
    monkeypatch.setenv("ADAPTRY_CACHE", str(tmp_path / "cache"))

    def call(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, f"{result.exit_code}: {result.output}{result.exception!r}"
        return result

    return call


def served(run: Run) -> set[tuple[str, str]]:
    """The registry's view of the worker: each name with its condition."""
    found = json.loads(run("workers", "show", "one", "--json").stdout)
    return {(one["served_as"], one["condition"]) for one in found["residents"]}


def test_a_recall_stays_open_until_a_killed_engine_is_declared_gone_and_is_proved_once_it_is_back(
    place: Place, env: dict[str, str], run: Run, tmp_path: Path
) -> None:
    early, other = place.publish("acme/early", seed=51), place.publish("acme/other", seed=52)
    move(place, "acme/early", early)
    exact = f"acme/early@{early.digest.brief}"
    cache = tmp_path / "cache"
    theirs = {
        **env,
        "ADAPTRY_CACHE": str(cache),
        "ADAPTRY_WORKER": "one",
        "ADAPTRY_PRELOAD": "acme/early@prod",
    }
    with ExitStack() as registry:
        near = registry.enter_context(serving_registry(ServerSettings(data=place.folder / "data")))
        cut_off = {**theirs, "ADAPTRY_URL": near.url}
        with vllm_server.serving(
            vllm_server.PYTHON.python, place.base, cut_off, tmp_path / "first.log"
        ) as vllm:
            until(lambda: list(vllm.names()) == [f"acme/early@prod@{early.digest.brief}"], _SILENCE)
            answer = vllm.complete(exact, models.PROMPT, 40)
            assert answer.model == exact
            assert logprobs(answer)[:12] == close_to(place.trained(early))
            until(lambda: f'running_lora_adapters="{exact}"' in vllm.ask("GET", "/metrics").body)
            until(lambda: {("acme/early@prod", "serving"), (exact, "serving")} <= served(run))

            told = (
                "--engine",
                "vllm",
                "--url",
                vllm.url,
                "--watch",
                "acme/*@prod",
                "--name",
                "two",
                "--once",
            )
            assert "as the worker one: it follows aliases" in run("follow", *told, code=4).stderr
            assert run("cache", "gc").stdout == ""
            full = Cache(cache, size=early.size + 10)
            with pytest.raises(StorageFull, match="processes that are running use acme/early@1"):
                full.acquire(place.registry, "acme/other@1")
            assert logprobs(vllm.complete("acme/early@prod", models.PROMPT)) == close_to(place.trained(early))

            registry.close()
            run("revoke", "acme/early@1", "--reason", "it leaks")
            assert vllm.complete("acme/early@prod", models.PROMPT).status == 200
            assert "serving" in run("recall", "status", "acme/early@1", code=1).stdout
            assert vllm.complete("acme/other@1", models.PROMPT).status == 503
            os.killpg(vllm.process.pid, signal.SIGKILL)
    until(lambda: "unknown: no report" in run("workers", "show", "one").stdout, _SILENCE)
    assert "last: serving" in run("recall", "status", "acme/early@1", code=1).stdout

    run("workers", "declare-gone", "one", "--reason", "the node was scrapped")
    closed = run("recall", "status", "acme/early@1")
    assert "declared gone by root (the node was scrapped)" in closed.stdout
    assert "removal proved: 0 of 1 worker" in closed.stderr

    with vllm_server.serving(vllm_server.PYTHON.python, place.base, theirs, tmp_path / "second.log") as vllm:
        until(
            lambda: (
                "removal proved: 1 of 1 worker"
                in CliRunner().invoke(main, ["recall", "status", "acme/early@1"]).stderr
            ),
            _SILENCE,
        )
        run("recall", "status", "acme/early@1")
        refused = vllm.complete("acme/early@prod", models.PROMPT)
        assert (refused.status, "it leaks" in refused.reason) == (403, True)
        assert not (cache / early.digest.hex).exists()
        assert logprobs(vllm.complete("acme/other@1", models.PROMPT)) == close_to(place.trained(other))
