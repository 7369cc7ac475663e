"""The effect of several hostile clients on an honest one: its 99th percentile latency, compared with quiet
rounds of the same run.

Hostile clients are processes at the lowest priority that send prepared requests, so the difference is the
server's work.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import urllib3
from tests.api import hostile_client
from tests.api.hostile_client import HostileRequest
from tests.api.test_hostile import BODIES
from tests.api.test_serve import CODE

from adaptry.adapters.adapter import open_dir
from adaptry.core import strictjson
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.storage.catalog import cursors
from adaptry.testing.samples import tiny_lora

pytestmark = pytest.mark.heavy

ROUNDS = 5
REQUESTS = 100  # minimum number of requests of the honest client in each round
SECONDS = 4.0  # minimum seconds that a round lasts
PAUSE = 0.05  # seconds between a response and the next request of one hostile client
NAME = AdapterName.parse("acme/tone")
KINDS = ("bodies", "open", "cursors", "cards", "globs", "bases", "headers", "patterns", "uploads")


@dataclass(frozen=True)
class Served:
    """A real server with one adapter, as a process."""

    url: str
    token: str
    process: int
    folder: Path

    @property
    def registry(self) -> HttpRegistry:
        return HttpRegistry(self.url, self.token)

    @property
    def seconds(self) -> float:
        """Processor time of the server itself, without the child processes that it started."""
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("load")
    command = [sys.executable, "-c", CODE, str(folder / "data"), "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url, token_file = process.stdout.readline().split()
        server = Served(url, Path(token_file).read_text().strip(), process.pid, folder)
        push(server.registry, open_dir(tiny_lora(folder / "tone")), str(NAME))
        yield server
        process.terminate()
        assert process.wait(60) in (0, -15)


def requests_of(kind: str, served: Served) -> list[HostileRequest]:
    """The requests of one kind of attack. Files that they need are stored first."""
    match kind:
        case "bodies":
            paths = ("/api/v1/adapters", "/api/v1/jobs", "/api/repos/create")
            return [HostileRequest("POST", path, body) for body in BODIES.values() for path in paths]
        case "open":
            return [HostileRequest("POST", "/api/v1/tokens/revoke", body) for body in BODIES.values()]
        case "cursors":
            forged = [cursors.encode(place, "bases") for place in ("x", str(2**64), "\x00")]
            return [HostileRequest("GET", f"/api/v1/bases?cursor={quote(one)}") for one in forged]
        case "cards":
            heads = (
                "a: [" * 900,
                "? " * 2000,
                "a: [" + "[]," * 20_000 + "]",
                "{" + "a," * 30_000 + "}",
                "&a " * 9000,
            )
            cards = [json.dumps({"content": f"---\n{head}\n---\n"}).encode() for head in heads]
            return [HostileRequest("POST", "/api/validate-yaml", card) for card in cards]
        case "globs":
            texts = [[f"{'?*'[(n + m) % 2]}{m % 10}*" * 14 for m in range(12)] for n in range(8)]
            return [
                HostileRequest(
                    "GET", "/api/v1/events?after=0&" + "&".join(f"adapter={quote(text)}" for text in globs)
                )
                for globs in texts
            ]
        case "bases":
            wide = b'{"record":{"tensors":[' + b"0," * (1 << 20) + b"0]}}"
            unknown = b'{"record":{' + b",".join(b'"%06d":1' % n for n in range(200_000)) + b"}}"
            twice = b'{"record":{' + b'"a":1,' * (1 << 18) + b'"a":1}}'
            return [HostileRequest("POST", "/api/v1/bases", body) for body in (wide, unknown, twice)]
        case "headers":
            long = b'{"a":[' + b"[]," * 2_700_000 + b"[]]}"
            short = b'{"a":[' + b"[]," * 340_000 + b"[]]}"
            config = b'{"peft_type":"LORA","r":8,"lora_alpha":16,"target_modules":["q"]}'
            return [_revision(served, config, len(raw).to_bytes(8, "little") + raw) for raw in (long, short)]
        case "patterns":
            folder = tiny_lora(served.folder / "patterns")
            fields = json.loads((folder / "adapter_config.json").read_bytes())
            weights = (folder / "adapter_model.safetensors").read_bytes()
            slow = [{rf"(?!(?:[\w.]+)+!)x{n}": 4, r"[\w.]{0,64}" * 12 + f"!{n}": 4} for n in range(8)]
            return [
                _revision(served, json.dumps({**fields, "rank_pattern": one}).encode(), weights)
                for one in slow
            ]
        case "uploads":
            return list(_broken_uploads(served))
    raise AssertionError(kind)


def _revision(served: Served, config: bytes, weights: bytes) -> HostileRequest:
    """A push of two files, which are stored already."""
    files = {"adapter_config.json": config, "adapter_model.safetensors": weights}
    for data in files.values():
        _store(served, data)
    entries = [
        {"path": path, "size": len(data), "sha256": str(Digest.of(data))} for path, data in files.items()
    ]
    manifest = base64.b64encode(strictjson.canonical({"files": entries, "schema": 1})).decode()
    return HostileRequest(
        "POST", f"/api/v1/adapters/{NAME}/revisions", json.dumps({"manifest": manifest}).encode()
    )


def _store(served: Served, data: bytes) -> None:
    registry = served.registry
    if not registry.files.has(NAME, Digest.of(data)):
        upload = registry.uploads.open(NAME, Digest.of(data), len(data))
        registry.uploads.finish(registry.uploads.append(upload, upload.offset, [data]))


def _broken_uploads(served: Served) -> Iterator[HostileRequest]:
    """Sessions that are opened, and pieces whose upload breaks off half-way."""
    piece = bytes(1 << 18)
    for number in range(16):
        digest = Digest.of(b"never sent %d" % number)
        order = {"digest": str(digest), "size": 1 << 30}
        id = served.registry.uploads.open(NAME, digest, 1 << 30).id
        at = (("Upload-Offset", "0"), ("Upload-Size", str(1 << 30)))
        yield HostileRequest("POST", f"/api/v1/adapters/{NAME}/uploads", json.dumps(order).encode())
        yield HostileRequest(
            "PATCH", f"/api/v1/uploads/{id}", piece, "application/octet-stream", at, breaks_off=True
        )


class Attackers:
    """One process for each kind of attack; they send requests inside `attacking` only."""

    def __init__(self, served: Served, kinds: tuple[str, ...], stack: ExitStack) -> None:
        address = urlsplit(served.url)
        self._processes = []
        for kind in kinds:
            requests = served.folder / f"{kind}.pickle"
            requests.write_bytes(pickle.dumps(requests_of(kind, served)))
            command = [
                sys.executable,
                "-m",
                hostile_client.__name__,
                str(address.hostname),
                str(address.port),
            ]
            process = stack.enter_context(
                subprocess.Popen(
                    [*command, served.token, str(requests), str(PAUSE)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            self._processes.append(process)

    @contextmanager
    def attacking(self) -> Iterator[None]:
        self._order("go")
        try:
            yield
        finally:
            self._order("pause")

    def end(self) -> Counter[str]:
        """Stops them; returns the number of responses by status."""
        answers: Counter[str] = Counter()
        for process in self._processes:
            out, _ = process.communicate(timeout=180)
            assert process.returncode == 0
            answers.update(json.loads(out))
        return answers

    def _order(self, word: str) -> None:
        for process in self._processes:
            assert process.stdin
            process.stdin.write(f"{word}\n")
            process.stdin.flush()


def percentile(served: Served, pool: urllib3.PoolManager) -> float:
    """The 99th percentile of the seconds that an honest client needs for one request."""
    seconds = []
    until = time.perf_counter() + SECONDS
    while (number := len(seconds)) < REQUESTS or time.perf_counter() < until:
        path = (f"/api/v1/adapters/{NAME}/versions", "/api/v1/search?q=method:lora")[number % 2]
        began = time.perf_counter()
        answer = pool.request("GET", served.url + path, headers={"Authorization": f"Bearer {served.token}"})
        seconds.append(time.perf_counter() - began)
        assert answer.status == 200
    return statistics.quantiles(seconds, n=100)[98]


@pytest.mark.parametrize("kinds", [KINDS, *((kind,) for kind in KINDS)], ids=["all at once", *KINDS])
def test_an_honest_client_waits_at_most_twice_as_long_during_an_attack(
    served: Served, kinds: tuple[str, ...], record_property: Callable[[str, object], None]
) -> None:
    quiet, attacked, spent = [], [], 0.0
    with ExitStack() as stack, urllib3.PoolManager(retries=False, timeout=60) as pool:
        attackers = Attackers(served, kinds, stack)
        percentile(served, pool)
        for _ in range(ROUNDS):
            before = served.seconds
            quiet.append(percentile(served, pool))
            between = served.seconds
            with attackers.attacking():
                attacked.append(percentile(served, pool))
            spent += (served.seconds - between) - (between - before)
        answers = attackers.end()
    assert not [status for status in answers if status >= "5" and status not in ("503", "broken off")], (
        answers
    )
    sent = answers.total()
    assert sent >= len(kinds)
    before, during = statistics.median(quiet), statistics.median(attacked)
    measured = (
        f"{'+'.join(kinds)}: quiet {before * 1e3:.1f} ms, attacked {during * 1e3:.1f} ms; {sent} hostile"
        f" requests took the server itself {spent / sent * 1e3:.1f} ms of processor time each"
    )
    record_property("measured", measured)
    print(measured, dict(answers))
    assert during <= 2 * before, measured
