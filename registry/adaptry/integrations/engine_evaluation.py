"""Evaluations of a running engine: each answer must state that the version gave it.

lm-eval sends its requests to a relay in this process, which passes them on to the engine. Answers state their
version in the header `X-Adaptry-Model` (`adaptry follow --proxy`) or as their `model` (the plugin for vLLM,
or an adapter that was loaded under its ref by digest). The answers of an engine that repeats any name that it
receives, or serves its base under every name, prove nothing, so a name that does not exist is requested
first.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import urllib3
from urllib3.exceptions import HTTPError

from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, Invalid, NotFound, Unavailable
from adaptry.core.http import check_url, open_pool, plain_reason
from adaptry.core.refs import ByDigest, Ref
from adaptry.integrations.serving.background_server import BackgroundServer
from adaptry.integrations.serving.vllm.names import parse_model_name
from adaptry.operations.evaluation.command import EvaluatedModel, completions_url

_PATH = "/v1/completions"
_ANSWERED_BY = "X-Adaptry-Model"
_PASSED_ON = ("Authorization", "Content-Type")
_SECONDS = urllib3.Timeout(connect=10, read=600)
_MAX_REQUEST = 64 << 20
_MAX_MESSAGE = 600


class EngineRelay(BackgroundServer):
    """Passes requests for completions on to the engine of `model`, while the block runs, and refuses answers
    of another version (409). `fault` is the reason of the first refusal; `answers` counts the answers that
    were passed on.
    """

    def __init__(self, model: EvaluatedModel, digest: Digest, api_key: str | None = None) -> None:
        """Raises `Invalid` if the engine's address is not a URL."""
        self._digest, self._name, self._adapter = digest, model.engine_name, model.ref.name
        self._url = completions_url(check_url(model.engine or ""))
        self._pool = open_pool(self._url, None, None)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._guard = threading.Lock()
        self.fault: str | None = None
        self.answers: int = 0
        super().__init__("127.0.0.1", 0, type("RelayRequest", (_RelayRequest,), {"relay": self}))

    def require_version(self) -> None:
        """Requests the version, and one that does not exist. Raises `NotFound` if the engine does not serve
        the version, `CheckFailed` if it does not state which version answers, `Conflict` if another one does,
        and `Unavailable`.
        """
        missing = f"{self._adapter}@{_another(self._digest).brief}"
        if self._request(missing).status == 200:
            raise CheckFailed(
                f"the engine at {self._url} also answers requests for {missing}, which does not exist, so its"
                " answers do not show which version gave them; put `adaptry follow --proxy` in front of it"
            )
        answer = self._request(self._name)
        if answer.status != 200:
            kind = Unavailable if answer.status >= 500 else NotFound
            raise kind(f"the engine does not serve {self._name} ({answer.status}): {_message(answer.data)}")
        if why := self._mismatch(answer):
            raise why

    def require_answers(self) -> None:
        """Raises `Conflict` if an answer was refused, and `CheckFailed` if there was none."""
        if self.fault:
            raise Conflict(f"nothing was added: {self.fault}")
        if not self.answers:
            raise CheckFailed("nothing was added: lm-eval did not use the engine")

    def context_length(self) -> int | None:
        """Maximum number of tokens of a prompt with its answer, if the engine lists it with its models, as
        vLLM does."""
        try:
            url = self._url.removesuffix("/completions") + "/models"
            cards = self._pool.request(
                "GET", url, headers=self._headers, timeout=_SECONDS, retries=False
            ).json()
            lengths = [card["max_model_len"] for card in cards["data"] if "max_model_len" in card]
        except (HTTPError, OSError, ValueError, KeyError, TypeError):
            return None
        return min((length for length in lengths if isinstance(length, int) and length > 0), default=None)

    def pass_on(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """The engine's status and answer; 409 if another version answered. Raises `Unavailable`."""
        answer = self._send(body, headers)
        if not 200 <= answer.status < 300:
            return answer.status, answer.data
        why = self._mismatch(answer)
        with self._guard:
            self.answers += not why
            self.fault = self.fault or (why.message if why else None)
        return (409, _error(why.message)) if why else (200, answer.data)

    def _mismatch(self, answer: urllib3.BaseHTTPResponse) -> CheckFailed | Conflict | None:
        """Why an answer is not proved to come from the version."""
        stated = answer.headers.get(_ANSWERED_BY) or _model_of(answer.data)
        ref = stated_ref(stated)
        if ref is None or not isinstance(ref.selector, ByDigest):
            return CheckFailed(
                f"the engine's answer names {stated!r} as its model, which does not identify a version;"
                " serve the version with our plugin for vLLM or behind `adaptry follow --proxy`, or load"
                f" it under the name {self._adapter}@{self._digest.brief}"
            )
        if not self._digest.hex.startswith(ref.selector.prefix):
            return Conflict(
                f"the engine answered a request for {self._name} with {ref}, not with {self._digest.brief},"
                " which is being evaluated"
            )
        return None

    def _request(self, name: str) -> urllib3.BaseHTTPResponse:
        body = json.dumps({"model": name, "prompt": "a", "max_tokens": 1, "temperature": 0}).encode()
        return self._send(body, {"Content-Type": "application/json", **self._headers})

    def _send(self, body: bytes, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request(
                "POST", self._url, body=body, headers=headers, timeout=_SECONDS, retries=False, redirect=False
            )
        except (HTTPError, OSError) as error:
            raise Unavailable(f"the engine at {self._url} does not answer: {plain_reason(error)}") from error


class _RelayRequest(BaseHTTPRequestHandler):
    relay: ClassVar[EngineRelay]

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != _PATH or not length.isdecimal() or int(length) > _MAX_REQUEST:
            self._answer(404, _error(f"only {_PATH} is passed on to the engine"))
            return
        body = self.rfile.read(int(length))
        passed = {name: value for name in _PASSED_ON if (value := self.headers.get(name))}
        try:
            self._answer(*self.relay.pass_on(body, passed))
        except Unavailable as error:
            self._answer(502, _error(error.message))

    def log_message(self, format: str, *arguments: object) -> None:
        """Logs nothing, because lm-eval logs its own requests."""

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def checked_engine(
    model: EvaluatedModel, digest: Digest, api_key: str | None = None
) -> Iterator[tuple[EvaluatedModel, EngineRelay]]:
    """The model as lm-eval evaluates it through a relay.

    Raises the errors of `EngineRelay.require_version`, and `Conflict` if lm-eval failed because an answer was
    refused.
    """
    with EngineRelay(model, digest, api_key) as relay:
        relay.require_version()
        try:
            yield replace(model, engine=relay.url, context_length=relay.context_length()), relay
        except Invalid:
            if relay.fault:
                relay.require_answers()
            raise


def stated_ref(model: str | None) -> Ref | None:
    """The one adapter that an answer's `model` names; None if that is not a ref, or is a stack."""
    stack = parse_model_name(model) if model else None
    return stack.single if stack else None


def _another(digest: Digest) -> Digest:
    """A digest that belongs to no version."""
    return Digest(f"{int(digest.hex, 16) ^ ((1 << 256) - 1):064x}")


def _model_of(body: bytes) -> str | None:
    """(`Any` inside: JSON.)"""
    try:
        found: Any = json.loads(body)
    except ValueError:
        return None
    model = found.get("model") if isinstance(found, dict) else None
    return model if isinstance(model, str) else None


def _message(body: bytes) -> str:
    return body[:_MAX_MESSAGE].decode("utf-8", "replace").strip()


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "adaptry"}}).encode()
