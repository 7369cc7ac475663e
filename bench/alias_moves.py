"""Checks that every request during an alias's move is answered, and by the version that the alias points at.

    python bench/alias_moves.py vllm-proxy [--requests 1000] [--moves 50] [--seconds 2]

The engine is the real one on this CPU with a tiny model (`moving_engines.py`): `vllm` (`adaptry follow`
beside it), `vllm-proxy` (with `--proxy`), `vllm-plugin`, `mistralrs` and `llamacpp-proxy`. Eight clients
request `acme/tone@prod` without a pause, half of them with generations of about `--seconds`, while the alias
moves from version to version. A request fails if its status is not 200. An answer is stale if its request
began after a move to another version was confirmed: the worker reports it as served; with the plugin, an
answer has come from it. It is mixed if it equals no version's answer; these were recorded before.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moving_engines import CLIENTS, ENGINES, PROD, Client, MovingEngine

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.digest import Digest
from adaptry.core.refs import AdapterName
from adaptry.operations import base_registry
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TONE = AdapterName.parse("acme/tone")
VERSIONS = 4
SHORT = 12  # tokens
_TIMEOUT = 120.0


@dataclass
class Tally:
    """The versions that the alias pointed at, the number of confirmed ones, and the responses."""

    moves: list[int]
    confirmed: int = 0
    seconds: list[float] = field(default_factory=list)
    """How long each long generation took."""
    answers: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    errors: Counter[str] = field(default_factory=Counter)

    def judge(self, began: int, status: int, text: str, versions: dict[str, int]) -> None:
        """`began`: the number of moves that were confirmed when the request began."""
        with self.lock:
            self.answers["all"] += 1
            if status != 200:
                self.answers["failed"] += 1
                self.errors[f"{status} {text[:100]}"] += 1
            elif text not in versions:
                self.answers["mixed"] += 1
            elif versions[text] not in self.moves[began:]:
                self.answers["stale"] += 1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("engine", choices=ENGINES)
    arguments.add_argument("--requests", type=int, default=1000)
    arguments.add_argument("--moves", type=int, default=50)
    arguments.add_argument("--seconds", type=float, default=2.0)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(ServerSettings(data=folder / "data")) as server:
            measure(options, folder, server)


def measure(options: argparse.Namespace, folder: Path, server: Server) -> None:
    registry, engine = server.registry(), ENGINES[options.engine]
    base = engine.base(folder / "base")
    base_registry.register_base(
        registry, open_checkpoint(base), ("org/tiny",), visibility="internal", cache=folder
    )
    made = [engine.adapter(folder / f"a{seed}", seed) for seed in range(1, VERSIONS + 1)]
    digests = [push(registry, open_dir(one), TONE).version.digest for one in made]
    registry.aliases.move(TONE, "prod", digests[0], None)
    with engine.running(folder, server, base) as client:
        generation = registry.aliases.list(TONE)[0].generation
        until(lambda: client.ask(1)[0] == 200)
        long = tokens_for(options.seconds, engine.most_tokens, client)
        versions: dict[str, int] = {}
        for number in (*range(1, VERSIONS), 0):
            generation = registry.aliases.move(TONE, "prod", digests[number], generation).generation
            confirm(engine, registry, digests[number], client)
            answers = [client.ask(tokens) for tokens in (SHORT, long)]
            assert {status for status, _ in answers} == {200}, answers
            assert versions.keys().isdisjoint(text for _, text in answers), "two versions answer alike"
            versions |= {text: number for _, text in answers}
        tally = Tally([0])
        stop = threading.Event()
        sizes = [long, SHORT] * (CLIENTS // 2)
        clients = [
            threading.Thread(target=keep_asking, args=(client, tokens, tally, versions, stop))
            for tokens in sizes
        ]
        began = time.monotonic()
        for one in clients:
            one.start()
        moved: list[float] = []
        for number in range(1, options.moves + 1):
            share = options.requests * number // (options.moves + 1)
            until(lambda share=share: tally.answers["all"] >= share)  # type: ignore[misc]
            at = time.monotonic()
            tally.moves.append(number % VERSIONS)
            digest = digests[number % VERSIONS]
            generation = registry.aliases.move(TONE, "prod", digest, generation).generation
            confirm(engine, registry, digest, client)
            tally.confirmed = number
            moved.append(time.monotonic() - at)
        until(lambda: tally.answers["all"] >= options.requests)
        stop.set()
        for one in clients:
            one.join()
        took = time.monotonic() - began
    found = tally.answers
    print(
        f"{options.engine}: {found['all']} requests in {took:.0f} s, for {SHORT} and {long} tokens"
        f" ({statistics.median(tally.seconds):.1f} s), over"
        f" {options.moves} moves: {found['failed']} failed, {found['stale']} stale, {found['mixed']} mixed;"
        f" confirmed after {statistics.median(moved):.2f} s (median), {max(moved):.2f} s at most"
    )
    for error, count in tally.errors.most_common(5):
        print(f"  {count} × {error}")


def keep_asking(
    client: Client, tokens: int, tally: Tally, versions: dict[str, int], stop: threading.Event
) -> None:
    while not stop.is_set():
        began, at = tally.confirmed, time.monotonic()
        status, text = client.ask(tokens)
        if tokens > SHORT and status == 200:
            tally.seconds.append(time.monotonic() - at)
        tally.judge(began, status, text, versions)


def tokens_for(seconds: float, most: int, client: Client) -> int:
    """The number of tokens that take at least this long next to the short requests. Measured three times,
    each time starting from the previous number: a token takes longer at the end of a long answer, and in the
    first requests.
    """
    tokens = 50
    for _ in range(3):
        clients = [threading.Thread(target=client.ask, args=(tokens,)) for _ in range(CLIENTS // 2)]
        began = time.monotonic()
        for one in clients:
            one.start()
        for one in clients:
            one.join()
        tokens = max(SHORT + 1, min(most, int(tokens * seconds / (time.monotonic() - began))))
    return tokens


def confirm(engine: MovingEngine, registry: HttpRegistry, digest: Digest, client: Client) -> None:
    """Waits until the worker reports the version as served; with the plugin, until it has answered."""
    if engine.confirms_by_answer:
        until(lambda: digest.brief in client.model())
        return
    until(
        lambda: any(
            (one.served_as, one.digest, one.condition) == (PROD, digest, "serving")
            for one in registry.workers.get("gpu-1").residents
        )
    )


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT * 5
    while not condition():
        assert time.monotonic() < deadline, "not within its time"
        time.sleep(0.02)


if __name__ == "__main__":
    main()
