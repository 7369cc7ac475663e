"""A hyper-parameter sweep: 200 clients push concurrently into one namespace that has abandoned uploads."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.pagination import iter_items
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry, RegistryContext
from adaptry.storage.local.quotas import MAX_OPEN_UPLOADS
from adaptry.testing.samples import tiny_lora
from adaptry.testing.warm_python import WarmPython

CLIENTS = 200


@contextmanager
def serve(data: Path) -> Iterator[str]:
    """Runs `adaptry serve` in a separate process; yields its address."""
    words = [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(data), "--port", "0"]
    process = WarmPython(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def broken_uploads(data: Path) -> None:
    """Opens as many uploads as a namespace may have, whose clients died five minutes ago."""
    registry = open_local(data)
    past = LocalRegistry(
        RegistryContext(
            registry.catalog, registry.blobs, clock=lambda: datetime.now(UTC) - timedelta(minutes=5)
        )
    )
    for number in range(MAX_OPEN_UPLOADS):
        past.uploads.open(AdapterName.parse("acme/broken"), Digest.of(bytes([number])), 1000)
    registry.close()


@pytest.mark.heavy
def test_a_sweep_of_200_clients_waits_for_its_turn_and_succeeds(tmp_path: Path) -> None:
    broken_uploads(tmp_path / "data")
    adapters = [tiny_lora(tmp_path / f"lora-{seed}", seed=seed) for seed in range(CLIENTS)]
    with serve(tmp_path / "data") as url:
        token = (tmp_path / "data" / "admin-token").read_text().strip()

        def run(seed: int) -> int:
            registry = HttpRegistry(url, token)
            try:
                return push(registry, open_dir(adapters[seed]), f"acme/run-{seed}").version.number
            finally:
                registry.close()

        with ThreadPoolExecutor(CLIENTS) as pool:
            assert list(pool.map(run, range(CLIENTS))) == [1] * CLIENTS
        registry = HttpRegistry(url, token)
        names = [
            str(one.name)
            for one in iter_items(lambda cursor: registry.adapters.list("acme", cursor, 200))
            if re.fullmatch(r"acme/run-\d+", str(one.name))
        ]
        assert len(names) == CLIENTS
