"""Mirror runs that are killed at any step, and concurrent runs: the next run completes what they left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.core.failpoints import NAMES, VARIABLE
from adaptry.core.refs import AdapterName
from adaptry.operations.mirror.bundles.reader import load_bundle
from adaptry.operations.mirror.bundles.writer import create_bundle
from adaptry.operations.mirror.plan import MirrorSelection, list_versions
from adaptry.operations.mirror.sync import sync_once
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions
from adaptry.storage.local import LocalRegistry
from adaptry.storage.maintenance.integrity import verify
from adaptry.testing.warm_python import WarmPython, run_warm

TONE = AdapterName.parse("acme/tone")
MakeLora = Callable[..., Adapter]
ALL = MirrorSelection(aliases=True)
QUICK = ("blobs.after_rename", "revisions.before_commit")
EVERY = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.heavy) for name in NAMES]


@pytest.mark.parametrize("place", EVERY)
def test_a_round_killed_at_any_point_is_finished_by_the_next(
    place: str, source: LocalRegistry, target: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    for seed in (1, 2):
        push(source, lora(seed), TONE, options=PushOptions(metrics={"accuracy": seed / 10}))
    script = str(Path(__file__).with_name("mirroring.py"))
    words = [sys.executable, script, str(tmp_path / "source"), str(tmp_path / "target")]
    killed = run_warm(words, env={**os.environ, VARIABLE: place}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert verify(target.catalog, target.blobs) == ()

    assert sync_once(source, target, ALL).failures == ()

    assert_same(source, target)
    assert not sync_once(source, target, ALL).is_change
    assert verify(target.catalog, target.blobs) == ()


def test_concurrent_rounds_do_not_interfere(pair: tuple[Registry, Registry], lora: MakeLora) -> None:
    there, here = pair
    for seed in (1, 2, 3):
        push(there, lora(seed), TONE)
    with ThreadPoolExecutor(3) as pool:
        rounds = list(pool.map(lambda number: sync_once(there, here, MirrorSelection()), range(3)))
    assert [one.failures for one in rounds] == [(), (), ()]
    assert_same(there, here)


def test_a_bundle_loaded_twice_at_once_is_loaded_once(
    source: LocalRegistry, target: LocalRegistry, lora: MakeLora, tmp_path: Path
) -> None:
    for seed in (1, 2):
        push(source, lora(seed), TONE)
    create_bundle(source, list_versions(source.versions, TONE), tmp_path / "x.bundle")
    with ThreadPoolExecutor(2) as pool:
        loads = list(pool.map(lambda number: load_bundle(target, tmp_path / "x.bundle"), range(2)))
    assert [one.failures for one in loads] == [(), ()]
    assert_same(source, target)


def test_a_mirror_runs_until_it_is_stopped(source: LocalRegistry, lora: MakeLora, tmp_path: Path) -> None:
    push(source, lora(1), TONE)
    words = [
        "mirror",
        "--from",
        str(tmp_path / "source"),
        "--registry",
        str(tmp_path / "new"),
        "--every",
        "1s",
    ]
    process = WarmPython(
        [sys.executable, "-m", "adaptry_cli", *words],
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "copied acme/tone@1\n"
        push(source, lora(2), TONE)
        assert process.stdout.readline() == "copied acme/tone@2\n"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


def assert_same(there: Registry, here: Registry) -> None:
    seen = [
        [(one.number, one.digest, one.state, one.metrics) for one in registry.versions.list(TONE).items]
        for registry in (there, here)
    ]
    assert seen[0] == seen[1]
