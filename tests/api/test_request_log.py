"""The server's request log: one line for each request, in two formats, without secrets."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adaptry.adapters.adapter import Adapter
from adaptry.operations.transfer import push
from adaptry_api.request_log import LogFormat, configure, redact
from adaptry_api.testing import RawResponse, Server


class Log(io.StringIO):
    """The log since this object was created."""

    def __init__(self) -> None:
        super().__init__()
        self._written = threading.Condition()
        self._may_write = threading.Event()
        self._may_write.set()

    def begin(self, format: LogFormat) -> None:
        configure(format, "info", self)

    @contextmanager
    def blocked(self) -> Iterator[None]:
        """Blocks writes to the log during the block."""
        self._may_write.clear()
        yield
        self._may_write.set()

    def write(self, text: str) -> int:
        assert self._may_write.wait(60)
        with self._written:
            written = super().write(text)
            self._written.notify_all()
        return written

    def until(self, text: str, count: int = 1) -> str:
        """The log, once `text` has been written that many times."""
        with self._written:
            assert self._written.wait_for(lambda: self.getvalue().count(text) >= count, 60)
            return self.getvalue()

    def line_of(self, answer: RawResponse) -> str:
        """The line of a request. Servers of earlier tests may still write others."""
        request = answer.headers["Request-Id"]
        (line,) = (line for line in self.until(request).splitlines() if request in line)
        return line

    def lines(self, count: int) -> list[str]:
        """The lines, once there are that many: a request is logged after its response."""
        with self._written:
            assert self._written.wait_for(lambda: self.getvalue().count("\n") >= count, 60)
            return self.getvalue().splitlines()


@pytest.fixture
def log() -> Iterator[Log]:
    names = ("adaptry", "uvicorn")
    before = [(each.handlers[:], each.level, each.propagate) for each in map(logging.getLogger, names)]
    yield Log()
    for name, (handlers, level, propagates) in zip(names, before, strict=True):
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagates
        logger.setLevel(level)


def test_a_request_is_one_log_line_with_caller_action_and_status(server: Server, log: Log) -> None:
    log.begin("json")
    answer = server.call("GET", "/api/v1/adapters/acme/secret-name")
    line = json.loads(log.line_of(answer))
    assert (line["principal"], line["method"], line["status"]) == ("root", "GET", 404)
    assert line["route"] == "/api/v1/adapters/{namespace}/{name}"
    assert line["milliseconds"] > 0
    assert (line["received"], line["sent"]) == (0, len(answer.body))


def test_the_text_form_has_the_same_on_one_line(server: Server, log: Log) -> None:
    log.begin("text")
    answer = server.call("GET", "/healthz", token=None)
    line = log.line_of(answer)
    assert f"INFO request {answer.headers['Request-Id']} - GET /healthz 200 " in line
    assert line.endswith("in=0 out=3")


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_is_in_the_log_from_any_part_of_a_request(
    server: Server, log: Log, format: LogFormat, tone: Adapter
) -> None:
    log.begin(format)
    push(server.registry(), tone, "acme/tone")
    made = server.call("POST", "/api/v1/tokens", {"name": "bob", "role": "writer", "namespaces": ["bob"]})
    invited = server.call("POST", "/api/v1/invitations", {"name": "ann"})
    secrets = [made.json["secret"], invited.json["code"], server.admin]
    for secret in secrets:
        for token in (secret, f"hf_{secret}", f"{secret}x"):
            server.call("GET", f"/api/v1/adapters/{token}/tone?grant={token}", token=token)
            server.call("GET", f"/{token}", headers={"X-Token": token, "User-Agent": token}, token=None)
            server.call("POST", "/api/v1/tokens/revoke", {"token": f"{token}?"}, token=None)
        logging.getLogger("adaptry.api").error("request failed: %s", {"authorization": f"Bearer {secret}"})
        try:
            raise ValueError(f"no such token: {secret}")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("failed")
    logging.getLogger("adaptry.api").error("the end")
    log.until("the end")
    text = log.until("adapters/{namespace}/{name}", 9)
    assert "no such token" in text
    for secret in secrets:
        assert secret.removeprefix("hf_").rpartition("_")[2][:20] not in text


def test_signatures_of_addresses_are_redacted() -> None:
    address = "https://bucket/key?X-Amz-Credential=AKIA%2F1&X-Amz-Signature=5f3a&partNumber=1&grant=a.b-c"
    shown = redact(
        f'GET {address} by postgresql://ada:s3cr3t@db/adaptry, "Authorization": "Bearer eyJhbGciOi"'
    )
    for secret in ("AKIA", "5f3a", "a.b-c", "s3cr3t", "eyJ"):
        assert secret not in shown
    assert "partNumber=1" in shown
    assert "postgresql://ada:" in shown


@pytest.mark.parametrize(
    "text",
    [
        "adr_user_s3cr3t",
        "HF_HUB: hf_adr_user_s3cr3t",
        "authorization: BEARER s3cr3t",
        "basic s3cr3t",
        "/key?Signature=s3cr3t",
        "partNumber=1&grant=s3cr3t",
        "postgresql://ada:s3cr3t@db",
    ],
)
def test_each_kind_of_secret_is_redacted_without_the_others(text: str) -> None:
    assert "s3cr3t" not in redact(text)


def test_a_line_break_in_a_message_does_not_begin_a_line_of_the_log(log: Log) -> None:
    log.begin("text")
    logging.getLogger("adaptry.api").warning("first\n2026-05-01T12:00:00.000Z INFO request forged")
    assert [line.startswith("  ") for line in log.lines(2)] == [False, True]


def test_a_blocked_log_pipe_delays_no_request(server: Server, log: Log) -> None:
    log.begin("text")
    with log.blocked():
        for _ in range(3):
            assert server.call("GET", "/healthz", token=None).status == 200
    assert len(log.lines(3)) == 3
