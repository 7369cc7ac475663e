"""The real lm-eval measures the real vLLM: the results equal PEFT's, and never those of another version."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3

from adaptry.core.refs import AdapterName, Ref
from adaptry.registry.records import VersionInfo

from ..evidence import tiny_task
from ..evidence.tiny_task import eval_command, run_eval
from . import vllm_server
from .conftest import Place

pytestmark = [*vllm_server.PYTHON.marks, *tiny_task.MARKS]

NAME = "acme/measured"
TASKS = {"likely": "perplexity", "choosing": "acc"}
"""Not what is written: a model of random weights writes bytes that are no text, which vLLM and transformers
show differently."""


@pytest.fixture(scope="module")
def tasks(place: Place) -> Path:
    for seed in (41, 42):
        place.publish(NAME, seed)
    place.registry.aliases.move(AdapterName.parse(NAME), "prod", version(place, 1).digest, None)
    return tiny_task.write_tasks(place.folder / "tasks")


@pytest.fixture(scope="module")
def evaluating(place: Place) -> Mapping[str, str]:
    return tiny_task.lm_eval_environment(place.folder, place.server.url, place.server.admin)


def version(place: Place, number: int) -> VersionInfo:
    return place.registry.versions.get(Ref.parse(f"{NAME}@{number}"))


def values(place: Place, number: int, task: str, metric: str) -> list[float]:
    found = place.registry.evidence.list(Ref.parse(f"{NAME}@{number}"), task=task, metric=metric)
    return [one.value for one in found.items]


@pytest.mark.parametrize("task", TASKS)
def test_an_engine_gives_the_numbers_of_peft(
    place: Place, vllm: vllm_server.Vllm, tasks: Path, evaluating: Mapping[str, str], task: str
) -> None:
    for number in (1, 2):
        ref = f"{NAME}@{number}"
        run_eval(eval_command(ref, task, tasks, place.base), evaluating)
        run_eval(eval_command(ref, task, tasks, place.base, "--engine", vllm.url), evaluating)
        engine, peft = values(place, number, task, TASKS[task])
        assert engine == pytest.approx(peft, rel=1e-3)
    assert task == "choosing" or values(place, 1, task, TASKS[task]) != values(place, 2, task, TASKS[task])


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (vllm_server.NAME, "which does not identify a version"),
        (f"{NAME}@2", "not with"),
        ("acme/none@prod", "the engine does not serve acme/none@prod (404)"),
    ],
)
def test_the_base_and_other_versions_are_not_measured(
    place: Place, vllm: vllm_server.Vllm, tasks: Path, evaluating: Mapping[str, str], model: str, says: str
) -> None:
    before = values(place, 1, "choosing", "acc")
    options = ("--engine", vllm.url, "--model", model)
    words = eval_command(f"{NAME}@1", "choosing", tasks, place.base, *options)
    code = {"acme/none@prod": 3, vllm_server.NAME: 1}.get(model, 4)
    assert says in run_eval(words, evaluating, code)
    assert values(place, 1, "choosing", "acc") == before


def test_an_alias_that_moves_during_the_evaluation_adds_nothing(
    place: Place, vllm: vllm_server.Vllm, tasks: Path, evaluating: Mapping[str, str]
) -> None:
    first, second = version(place, 1), version(place, 2)
    generation = next(one.generation for one in place.registry.aliases.list(first.name))
    before = values(place, 1, "choosing", "acc")

    def move() -> None:
        place.registry.aliases.move(first.name, "prod", second.digest, generation)
        while second.digest.brief not in vllm.complete(f"{NAME}@prod", "a", 1).model:
            pass

    with passing_on(vllm.url, {4: move}) as url:  # in the middle: the command sends the first two requests
        options = ("--engine", url, "--model", f"{NAME}@prod")
        words = eval_command(f"{NAME}@1", "choosing", tasks, place.base, *options)
        printed = run_eval(words, evaluating, 4)
    answered = f"the engine answered a request for {NAME}@prod with {NAME}@{second.digest.brief}"
    assert f"nothing was added: {answered}" in printed
    assert values(place, 1, "choosing", "acc") == before


@contextmanager
def passing_on(url: str, before: Mapping[int, Callable[[], None]]) -> Iterator[str]:
    """A proxy that forwards requests one by one; `before` names the request before which the action runs."""
    guard, count = threading.Lock(), iter(range(1 << 30))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._pass("GET", None)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with guard:
                before.get(next(count), lambda: None)()
                self._pass("POST", body)

        def _pass(self, method: str, body: bytes | None) -> None:
            headers = {"Content-Type": "application/json"}
            answer = urllib3.request(method, url + self.path, body=body, headers=headers, retries=False)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.data)))
            self.end_headers()
            self.wfile.write(answer.data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
