"""What an engine must report before results of lm-eval are accepted, with recorded engines replayed by a
small server.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest
import urllib3

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, CheckFailed, Conflict, Invalid, NotFound, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.engine_evaluation import checked_engine
from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.operations.evaluation.command import EvaluatedModel

DIGEST, OTHER = Digest("ab" * 32), Digest("cd" * 32)
MODEL = EvaluatedModel(Ref.of_revision(AdapterName.parse("acme/tone"), DIGEST), "org/base")
NAME = f"acme/tone@{DIGEST.brief}"
Answer = Callable[[str], tuple[int, str, str | None]]
"""Of a requested model: the status, the `model` of the answer, and the header that states the version."""


@contextmanager
def engine(answer: Answer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, model, header = answer(body["model"])
            self.reply(status, {"model": model, "key": self.headers.get("Authorization")}, header)

        def do_GET(self) -> None:
            self.reply(200, {"data": [{"id": "base", "max_model_len": 64}]}, None)

        def reply(self, status: int, body: object, header: str | None) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            if header:
                self.send_header("X-Adaptry-Model", header)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with BackgroundServer("127.0.0.1", 0, Handler) as server:
        yield server.url


def known(stated: str, header: str | None = None) -> Answer:
    """An engine that serves `NAME`, and nothing else."""
    return lambda model: (200, stated, header) if model == NAME else (404, model, None)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (lambda model: (200, model, None), CheckFailed, "also answers requests for acme/tone@sha256:5454"),
        (lambda model: (200, "base", None), CheckFailed, "which does not exist"),
        (lambda model: (404, model, None), NotFound, "does not serve"),
        (lambda model: (503, model, None), Unavailable, "does not serve"),
        (known("base"), CheckFailed, "which does not identify a version"),
        (known(f"acme/tone@{OTHER.brief}"), Conflict, "not with sha256:abab"),
        (known(f"acme/tone@prod@{OTHER.brief}~2"), Conflict, "not with sha256:abab"),
        (known(NAME, f"acme/tone@{OTHER.brief}"), Conflict, "not with sha256:abab"),
        (known(f"{NAME}=0.5"), CheckFailed, "which does not identify a version"),
        (known(f"{NAME}+acme/facts@{OTHER.brief}"), CheckFailed, "which does not identify a version"),
        (known("acme/tone@prod"), CheckFailed, "which does not identify a version"),
        (known("acme/tone@sha256:abababab"), CheckFailed, "which does not identify a version"),
    ],
)
def test_an_engine_that_does_not_prove_the_version_is_refused_before_lm_eval_starts(
    answer: Answer, error: type[AdaptryError], says: str
) -> None:
    with (
        engine(answer) as url,
        pytest.raises(error, match=says),
        checked_engine(replace(MODEL, engine=url), DIGEST),
    ):
        pytest.fail("it was not refused")


@pytest.mark.parametrize(
    "answer",
    [
        known(NAME),
        known(f"acme/tone@prod@{DIGEST.brief}~3"),
        known("tiny", NAME),
        known(f"acme/tone@{DIGEST}"),
    ],
)
def test_answers_that_state_the_version_are_passed_on(answer: Answer) -> None:
    with (
        engine(answer) as url,
        checked_engine(replace(MODEL, engine=url), DIGEST, "secret") as (model, relay),
    ):
        assert model.context_length == 64
        with pytest.raises(CheckFailed, match="lm-eval did not use the engine"):
            relay.require_answers()
        headers = {"Authorization": "Bearer of lm-eval"}
        answered = urllib3.request(
            "POST", f"{model.engine}/v1/completions", json={"model": NAME}, headers=headers
        )
        assert (answered.status, answered.json()["key"]) == (200, "Bearer of lm-eval")
        assert urllib3.request("POST", f"{model.engine}/v1/load_lora_adapter", json={}).status == 404
        relay.require_answers()


def test_a_single_answer_of_another_version_prevents_adding_results() -> None:
    stated = [NAME, NAME, f"acme/tone@{OTHER.brief}", NAME]

    def answer(model: str) -> tuple[int, str, str | None]:
        return (200, stated.pop(0), None) if model == NAME else (404, model, None)

    with (
        engine(answer) as url,
        pytest.raises(Conflict, match=f"nothing was added: the engine answered a request for {NAME} with"),
        checked_engine(replace(MODEL, engine=url), DIGEST) as (model, relay),
    ):
        path = f"{model.engine}/v1/completions"
        statuses = [urllib3.request("POST", path, json={"model": NAME}).status for _ in range(3)]
        assert statuses == [200, 409, 200]
        with pytest.raises(Conflict):
            relay.require_answers()
        raise Invalid("lm-eval failed (exit status 1)")
