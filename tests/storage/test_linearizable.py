"""Two server processes on one registry: no response is older than a move that ended before the request."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.testing.postgres import PostgresServer
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.slow
TONE, PROD = AdapterName.parse("acme/tone"), Ref.parse("acme/tone@prod")
MOVES, VERSIONS = 60, 4


@contextmanager
def serve(data: Path, *options: str) -> Iterator[str]:
    """Runs `adaptry serve` in a separate process; yields its address."""
    command = [sys.executable, "-m", "adaptry_cli", "serve", "--data", str(data), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_no_server_returns_an_alias_from_before_a_finished_move(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with ExitStack() as stack:
        options = []
        if database == "postgres":
            server: PostgresServer = request.getfixturevalue("postgres")
            options = ["--catalog", server.url(server.create_migrated())]
        folders = [tmp_path / "data", tmp_path / ("other" if options else "data")]
        urls = [stack.enter_context(serve(folder, *options)) for folder in folders]
        token = (tmp_path / "data" / "admin-token").read_text().strip()
        mover, *_ = registries = [HttpRegistry(url, token) for url in urls]
        digests = [
            push(mover, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE).version.digest
            for seed in range(VERSIONS)
        ]
        generation = mover.aliases.move(TONE, "prod", digests[0], None).generation
        ended, is_over = 0, threading.Event()

        def read(registry: HttpRegistry) -> list[tuple[int, int, int]]:
            """Reads repeatedly: the number of moves that had ended before and after each answer, and the
            version in the answer.
            """
            answers = []
            while not is_over.is_set():
                before = ended
                number = registry.versions.get(PROD).number
                answers.append((before, ended, number))
            return answers

        with ThreadPoolExecutor(4) as pool:
            readers = [pool.submit(read, registry) for registry in (*registries, *registries)]
            for move in range(1, MOVES + 1):
                at = registries[move % 2].aliases
                generation = at.move(TONE, "prod", digests[move % VERSIONS], generation).generation
                ended = move
            is_over.set()
        answers = [answer for reader in readers for answer in reader.result()]
    stale = [answer for answer in answers if answer[2] not in _possible(*answer[:2])]
    assert stale == []
    assert any(len(_possible(*answer[:2])) < VERSIONS for answer in answers), (
        "every answer took several moves"
    )


def _possible(before: int, after: int) -> set[int]:
    """The versions that an answer may show: that of the last move that ended before it, and those of all
    later moves, including one that may have been under way.
    """
    return {1 + move % VERSIONS for move in range(before, after + 2)}
