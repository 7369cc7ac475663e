"""The commands for serving: `follow`, `workers`, `recall`, `rollout`, and the serving part of `show`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from adaptry.registry.workers import ResidentReport, WorkerProblem, WorkerReport
from adaptry.testing.warm_python import WarmPython
from adaptry_cli.main import main

from .conftest import PROD, Scene

Run = Callable[..., Result]


@pytest.fixture
def run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("ADAPTRY_URL", scene.server.url)
    monkeypatch.setenv("ADAPTRY_TOKEN", scene.server.admin)
    monkeypatch.setenv("ADAPTRY_CACHE", str(scene.folder / "cache"))

    def call(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, words)
        assert result.exit_code == code, f"{result.exit_code}: {result.output}{result.exception!r}"
        return result

    return call


@pytest.fixture
def follow(run: Run) -> Callable[..., Result]:
    def follow(engine: Any, *words: str, code: int = 0) -> Result:
        told = ("--engine", engine.kind, "--url", engine.url, "--watch", "acme/*@prod", "--name", "gpu-1")
        return run("follow", *told, "--once", *words, code=code)

    return follow


def test_a_worker_is_started_by_a_command_and_seen_by_others(
    scene: Scene, run: Run, follow: Callable[..., Result]
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    assert f"loaded {PROD}: acme/tone@1" in follow(engine, "--slots", "3").stderr
    assert scene.serves(engine) == 1
    engine.stop()
    follow(engine, code=6)
    assert f"gpu-1 as {PROD}, engine away, last serving since" in run("show", "acme/tone@1").stdout
    engine.start()
    follow(engine, "--slots", "3")
    listed = run("workers", "ls").stdout
    assert re.search(r"gpu-1 +serving +vllm@0.33.0 +1 +org/tiny +root", listed)
    assert f"{PROD}  " in run("workers", "show", "gpu-1").stdout
    assert json.loads(run("workers", "show", "gpu-1", "--json").stdout)["slots"] == 3
    assert f"gpu-1 as {PROD}, serving since" in run("show", "acme/tone@1").stdout
    assert "if its engine is gone, declare it" in run("workers", "forget", "gpu-1", code=4).stderr
    scene.registry.workers.report(WorkerReport(worker="gpu-1", engine="vllm"))
    run("workers", "forget", "gpu-1")
    assert "no worker reports to this registry" in run("workers", "ls").stderr


def test_a_version_that_cannot_be_loaded_is_shown_with_the_reason_and_not_as_loading(
    scene: Scene, run: Run
) -> None:
    """A worker reports a version before it loads it; the report stays like this if the version is preloaded
    and never fits.
    """
    version = scene.publish(1)
    resident = ResidentReport(
        name=version.name, digest=version.digest, served_as=PROD, condition="loading", since=datetime.now(UTC)
    )
    problems = (WorkerProblem(served_as=PROD, reason="its rank 64 is above 16"),)
    scene.registry.workers.report(
        WorkerReport(worker="gpu-1", engine="vllm", residents=(resident,), problems=problems)
    )
    shown = run("workers", "show", "gpu-1").stdout
    assert re.search(rf"{PROD} +acme/tone@1, not loaded since .*: its rank 64 is above 16\n", shown)
    assert "loading" not in shown and "problem" not in shown


def test_a_recall_is_proved_worker_by_worker(scene: Scene, run: Run, follow: Callable[..., Result]) -> None:
    version = scene.publish(1)
    scene.alias(version)
    scene.alias(version, "next")
    engine = scene.engine()
    follow(engine, "--watch", "acme/*@next")
    assert "so it is not recalled" in run("recall", "status", "acme/tone@1", code=1).stderr
    run("revoke", "acme/tone@1", "--reason", "for a test")
    waiting = run("recall", "status", "acme/tone@1", "--wait", "0.1", code=1)
    assert re.search(r"gpu-1 +root +acme/tone@prod +serving", waiting.stdout)
    follow(engine, "--watch", "acme/*@next")
    done = run("recall", "status", "acme/tone@1")
    for alias in ("prod", "next"):
        assert re.search(rf"gpu-1 +root +acme/tone@{alias} +dropped", done.stdout)
    assert "removal proved: 1 of 1 worker" in done.stderr
    assert json.loads(run("recall", "status", "acme/tone@1", "--json").stdout)["is_complete"]


def test_the_problems_of_a_full_report_are_shown_as_that_many_or_more(scene: Scene, run: Run) -> None:
    problems = tuple(WorkerProblem(served_as=f"acme/a{n}@prod", reason="no room") for n in range(256))
    for shown, count in ((problems[:255], "255"), (problems, r"256\+")):
        scene.registry.workers.report(WorkerReport(worker="gpu-1", engine="vllm", problems=shown))
        assert re.search(rf"gpu-1 +serving +vllm +0 +{count} ", run("workers", "ls").stdout)
    assert "at most 256 problems; there may be others" in run("workers", "show", "gpu-1").stdout


def test_a_recall_shows_that_an_engine_does_not_answer(
    scene: Scene, run: Run, follow: Callable[..., Result]
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    follow(engine)
    engine.stop()
    follow(engine, code=6)
    run("revoke", "acme/tone@1", "--reason", "for a test")
    found = run("recall", "status", "acme/tone@1", code=1)
    assert re.search(r"gpu-1 +root +acme/tone@prod +unknown: engine away; last: serving", found.stdout)
    assert "gpu-1 may still serve it" in found.stderr


def test_a_recall_waits_for_a_silent_worker_until_it_is_declared_gone(
    scene: Scene, run: Run, follow: Callable[..., Result]
) -> None:
    scene.alias(scene.publish(1))
    follow(scene.engine(), "--lease", "5")
    run("revoke", "acme/tone@1", "--reason", "for a test")
    found = run("recall", "status", "acme/tone@1", code=1)
    for _ in range(2000):
        if "unknown" in found.stdout:
            break
        found = run("recall", "status", "acme/tone@1", code=1)
    silence = r"unknown: no report for \d+ s; last: serving"
    assert re.search(rf"gpu-1 +root +acme/tone@prod +{silence}", found.stdout)
    assert "gpu-1 may still serve it" in found.stderr
    shown = run("workers", "show", "gpu-1").stdout
    assert re.search(rf"gpu-1   {silence}", shown)
    assert "acme/tone@1 (revoked), last reported as serving since" in shown
    assert re.search(r"gpu-1 +unknown +vllm", run("workers", "ls").stdout)

    run("workers", "declare-gone", "gpu-1", "--reason", "x", code=2)
    run("workers", "declare-gone", "gpu-1", "--reason", "the node was scrapped")
    closed = run("recall", "status", "acme/tone@1")
    assert "declared gone by root (the node was scrapped)" in closed.stdout
    assert "removal proved: 0 of 1 worker" in closed.stderr
    assert "declared gone, without proof: 1 worker" in closed.stderr
    assert "declared gone by root, " in run("workers", "show", "gpu-1").stdout


def test_two_workers_do_not_fight_over_one_engine(scene: Scene, follow: Callable[..., Result]) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    engine.plugin = "gpu-1-vllm"
    refused = follow(engine, code=4)
    assert "already serves the adapters of this engine, as the worker gpu-1-vllm" in refused.stderr
    assert engine.names() == {}


def test_a_rollout_can_be_advanced_manually(scene: Scene, run: Run, follow: Callable[..., Result]) -> None:
    scene.alias(scene.publish(1))
    scene.publish(2)
    engine = scene.engine()
    follow(engine)
    started = run("rollout", "start", PROD, "--to", "2", "--percent", "10", "--every", "10m")
    assert started.stdout == "acme/tone@prod from 1 to 2: 10 %, running\n"
    follow(engine)
    assert scene.serves(engine) == 2
    assert re.search(r"prod +1 +2 +10 +running", run("rollout", "status", "acme/tone").stdout)
    aborted = run("rollout", "abort", PROD, "--reason", "too slow")
    assert aborted.stdout == "acme/tone@prod from 1 to 2: 10 %, aborted\n"
    follow(engine)
    assert scene.serves(engine) == 1
    run("rollout", "advance", PROD, code=3)
    run("rollout", "start", PROD, "--to", "2", "--steps", "50,100")
    assert run("rollout", "advance", PROD).stdout == "acme/tone@prod from 1 to 2: 100 %, done\n"
    follow(engine)
    assert scene.serves(engine) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("start", "acme/tone@1", "--to", "2"), "name the alias"),
        (("start", PROD, "--to", "2", "--steps", "50,10"), "rising percentages"),
        (("start", PROD, "--to", "2", "--steps", "a"), "not steps"),
        (("start", PROD, "--to", "2", "--percent", "5", "--steps", "10"), "--steps"),
        (("start", PROD, "--to", "2", "--every", "soon"), "not a duration"),
        (("start", PROD, "--to", "2", "--every", "0"), "(--every) must be from 1s to 30d"),
    ],
)
def test_contradictory_options_are_reported(
    scene: Scene, run: Run, words: tuple[str, ...], sentence: str
) -> None:
    assert sentence in run("rollout", *words, code=2).stderr


def test_wrong_calls_of_follow_are_refused(
    scene: Scene, run: Run, follow: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scene.engine()
    assert "not refs" in follow(engine, "--watch", "acme/*", code=2).stderr
    assert "not a worker name" in follow(engine, "--name", "///", code=2).stderr
    engine.models = ("org/unknown",)
    assert "--base" in follow(engine, code=3).stderr
    engine.models = ("org/tiny",)
    assert "and not vllm" in follow(scene.engine("sglang"), "--runtime", "vllm", code=2).stderr
    told = ("--engine", "vllm", "--url", engine.url, "--watch", "acme/*@prod", "--name", "gpu-1", "--once")
    unwritable = str(Path(__file__) / "cache")
    assert "not a directory" in follow(engine, "--cache", unwritable, code=6).stderr.lower()
    monkeypatch.setenv("ADAPTRY_TOKEN", scene.server.token("ron", "reader", ("acme",)))
    assert "--role worker" in run("follow", *told, code=5).stderr


@pytest.fixture
def process(scene: Scene) -> Iterator[Callable[[Any], subprocess.Popen[str]]]:
    """`adaptry follow` in a separate process."""
    started: list[subprocess.Popen[str]] = []

    def start(engine: Any) -> subprocess.Popen[str]:
        words = ["--engine", engine.kind, "--url", engine.url, "--watch", "acme/*@prod", "--name", "gpu-1"]
        started.append(
            WarmPython(
                [sys.executable, "-m", "adaptry_cli", "follow", *words],
                env={
                    **os.environ,
                    "ADAPTRY_URL": scene.server.url,
                    "ADAPTRY_TOKEN": scene.server.token("gpu-1", "worker", ("acme",)),
                    "ADAPTRY_CACHE": str(scene.folder / "cache"),
                },
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for one in started:
        one.kill()
        one.communicate()


def test_follow_runs_until_stopped_and_the_engine_keeps_its_adapters(
    scene: Scene, process: Callable[[Any], subprocess.Popen[str]]
) -> None:
    scene.alias(scene.publish(1))
    engine = scene.engine()
    worker = process(engine)
    assert worker.stderr is not None
    assert "while an alias moves, vllm has a gap" in worker.stderr.readline()
    assert "loaded acme/tone@prod: acme/tone@1" in worker.stderr.readline()
    scene.alias(scene.publish(2))
    assert "acme/tone@prod is now acme/tone@2" in worker.stderr.readline()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert "stopped" in worker.stderr.read()
    assert scene.serves(engine) == 2


def test_a_second_follower_of_an_engine_or_under_a_name_in_use_is_refused(
    scene: Scene, process: Callable[[Any], subprocess.Popen[str]], follow: Callable[..., Result]
) -> None:
    scene.alias(scene.publish(1))
    engine, other = scene.engine(), scene.engine()
    worker = process(engine)
    assert worker.stderr is not None
    worker.stderr.readline()
    assert "loaded acme/tone@prod" in worker.stderr.readline()

    refused = follow(engine, "--name", "gpu-2", "--url", engine.url.replace("127.0.0.1", "localhost"), code=4)
    assert "already manages the adapters of the engine" in refused.stderr
    assert "reports as gpu-1" in follow(other, code=4).stderr
    assert (scene.serves(engine), other.names()) == (1, {})

    worker.kill()
    worker.wait()
    follow(engine)
