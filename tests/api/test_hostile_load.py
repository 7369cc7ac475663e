"""What an honest client notices of several hostile ones: its 99th percentile, beside that of quiet rounds in the same run."""

from __future__ import annotations

import itertools
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import urllib3
from tests.api.test_hostile import BODIES
from tests.api.test_serve import CODE

from adaptry.adapter.view import open_dir
from adaptry.catalog import cursors
from adaptry.client import HttpRegistry
from adaptry.testing.samples import tiny_lora
from adaptry.transfer import push

pytestmark = pytest.mark.heavy

ROUNDS = 3
REQUESTS = 100  # of the honest client, in each round
PAUSE = 0.02  # seconds between hostile requests, so that the clients' own work does not fill both processors
HEADER = b'{"a":[' + b"[]," * 400_000 + b"[]]}"

Call = Callable[..., urllib3.BaseHTTPResponse]


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """Sends a request to a real server with one adapter."""
    command = [sys.executable, "-c", CODE, str(tmp_path / "data"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url, token_file = process.stdout.readline().split()
        token = Path(token_file).read_text().strip()
        push(HttpRegistry(url, token), open_dir(tiny_lora(tmp_path / "tone")), "acme/tone")
        pool = urllib3.PoolManager(retries=False, timeout=60, maxsize=16)

        def send(method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> object:
            sent = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            return pool.request(method, url + path, body=body, headers=sent)

        yield send  # type: ignore[misc]
        process.terminate()
        assert process.wait(60) in (0, -15)


def attacks(call: Call) -> dict[str, Iterator[Callable[[], urllib3.BaseHTTPResponse]]]:
    """Endless requests of each kind."""
    bodies = itertools.cycle(BODIES.values())
    forged = itertools.cycle(cursors.encode(place, "bases") for place in ("x", str(2**64), "\x00"))
    heads = itertools.cycle(["---\n" + "a: [" * 900 + "\n---\n", "---\n" + "? " * 2000 + "\n---\n"])
    return {
        "bodies": (lambda body=body: call("POST", "/api/v1/adapters", body) for body in bodies),
        "open": (lambda body=body: call("POST", "/api/v1/tokens/revoke", body) for body in bodies),
        "cursors": (lambda one=one: call("GET", f"/api/v1/bases?cursor={quote(one)}") for one in forged),
        "cards": (
            lambda head=head: call(
                "POST", "/api/validate-yaml", f'{{"content":{head!r}}}'.replace("'", '"').encode()
            )
            for head in heads
        ),
    }


def percentile(call: Call) -> float:
    """The 99th percentile of an honest client's seconds for one request."""
    seconds = []
    for number in range(REQUESTS):
        path = ("/api/v1/adapters/acme/tone/versions", "/api/v1/search?q=method:lora")[number % 2]
        began = time.perf_counter()
        assert call("GET", path).status == 200
        seconds.append(time.perf_counter() - began)
    return statistics.quantiles(seconds, n=100)[98]


def test_an_honest_client_waits_at_most_twice_as_long_while_others_attack(
    call: Call, record_property: Callable[[str, object], None]
) -> None:
    quiet, attacked = [], []
    percentile(call)
    for _ in range(ROUNDS):
        quiet.append(percentile(call))
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            hostile = [pool.submit(attack, each, stop) for each in attacks(call).values()]
            try:
                attacked.append(percentile(call))
            finally:
                stop.set()
            assert all(one.result(120) for one in hostile)
    record_property("quiet", quiet)
    record_property("attacked", attacked)
    before, during = statistics.median(quiet), statistics.median(attacked)
    assert during <= 2 * before, f"quiet {before * 1e3:.1f} ms, attacked {during * 1e3:.1f} ms"


def attack(requests: Iterator[Callable[[], urllib3.BaseHTTPResponse]], stop: threading.Event) -> int:
    """Sends requests until told to stop, all of which must be answered and none with a 5xx but `try again`."""
    sent = 0
    for request in requests:
        status = request().status
        assert status < 500 or status == 503, status
        sent += 1
        if stop.wait(PAUSE):
            return sent
    return sent
