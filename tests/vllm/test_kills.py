"""A real vLLM whose alias moves while its registry is unreachable, and while vLLM itself is killed: no
avoidable failure, and no response from a version that the alias has left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import urllib3

from adaptry.testing.fault_proxy import FaultProxy, ProxyFault, run_proxy

from . import models, vllm_server
from .conftest import Place
from .test_resolver import move, until
from .vllm_server import Answer, Vllm

pytestmark = vllm_server.PYTHON.marks

NAME = "acme/killed"
PROD = f"{NAME}@prod"


@dataclass
class Clients:
    """Requests for one alias from several threads, with their answers in order."""

    answers: list[Answer] = field(default_factory=list)
    broken: int = 0
    """How many requests ended without an answer."""

    @contextlib.contextmanager
    def asking(self, vllm: Vllm) -> Iterator[None]:
        stop = threading.Event()

        def keep_asking(tokens: int) -> None:
            while not stop.is_set():
                try:
                    self.answers.append(vllm.complete(PROD, models.PROMPT, tokens))
                except urllib3.exceptions.HTTPError:
                    self.broken += 1
                    return

        threads = [threading.Thread(target=keep_asking, args=(tokens,)) for tokens in (4, 4, 40)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def has(self, brief: str) -> bool:
        return any(brief in answer.model for answer in list(self.answers) if answer.status == 200)


def test_no_answer_fails_or_is_stale_over_an_outage_and_a_kill_while_the_alias_moves(
    place: Place, env: dict[str, str], tmp_path: Path
) -> None:
    versions = [place.publish(NAME, seed=seed) for seed in (61, 62, 63)]
    first, second, third = (version.digest.brief for version in versions)
    move(place, NAME, versions[0])
    with run_proxy(FaultProxy("127.0.0.1", int(place.server.url.rpartition(":")[2]))) as registry:
        theirs = {
            **env,
            "ADAPTRY_URL": f"http://127.0.0.1:{registry.port}",
            "ADAPTRY_CACHE": str(tmp_path / "cache"),
            "ADAPTRY_WORKER": "killed",
        }
        with vllm_server.serving(
            vllm_server.PYTHON.python, place.base, theirs, tmp_path / "first.log"
        ) as vllm:
            until(lambda: vllm.complete(PROD, models.PROMPT).status == 200)
            outage = Clients()
            with outage.asking(vllm):
                until(lambda: outage.has(first))
                registry.arm(ProxyFault("refuse"), times=None)
                registry.reset_connections()
                move(place, NAME, versions[1])
                until(lambda: "adaptry_registry_up" in up(vllm) and up(vllm).endswith(" 0.0"))
                assert not outage.has(second)
                registry.disarm()
                until(lambda: outage.has(second))
            assert {answer.status for answer in outage.answers} == {200}
            assert outage.broken == 0

            kill = Clients()
            with kill.asking(vllm):
                until(lambda: kill.has(second))
                move(place, NAME, versions[2])
                os.killpg(vllm.process.pid, signal.SIGKILL)
            assert {answer.status for answer in kill.answers} == {200}
            assert not kill.has(first)
        with vllm_server.serving(
            vllm_server.PYTHON.python, place.base, theirs, tmp_path / "second.log"
        ) as vllm:
            back = vllm.complete(PROD, models.PROMPT)
            assert third in back.model
            until(lambda: residents(place) == {third})


def up(vllm: Vllm) -> str:
    """The metric that shows whether the registry answers."""
    lines = vllm.ask("GET", "/metrics").body.splitlines()
    return next((line for line in lines if line.startswith("adaptry_registry_up")), "")


def residents(place: Place) -> set[str]:
    """The versions that are served there, according to the registry."""
    found = place.registry.workers.get("killed").residents
    return {one.digest.brief for one in found if one.condition == "serving" and one.digest}
