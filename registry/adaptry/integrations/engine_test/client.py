"""Queries engines for an engine test: the most likely next tokens after a prompt, with and without the
adapter.

vLLM: `/v1/completions` with `logprobs` and `return_tokens_as_token_ids`. llama.cpp: `/completion` with
`n_probs` and `lora`. SGLang: `/generate` with `return_logprob` and `lora_path`. One function each, and a
table entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import urllib3
from urllib3.exceptions import HTTPError

from adaptry.core import strictjson
from adaptry.core.errors import CheckFailed, Invalid, NotFound, Unavailable
from adaptry.core.http import check_url, open_pool, plain_reason
from adaptry.core.lazy_dataclass import dataclass
from adaptry.integrations.engine_test.verdict import Logprobs

_LIMITS = strictjson.JsonLimits(size=8 << 20, depth=16, nodes=200_000)
_SECONDS = urllib3.Timeout(connect=5, read=120)  # an adapter may have to be loaded first
_TOP = 5


@dataclass(frozen=True, slots=True)
class EngineTarget:
    """The engine to test: its address, and its names for the base and for the adapter."""

    url: str
    base: str
    adapter: str
    token: str | None = None


QueryLogprobs = Callable[[EngineTarget, str, bool], Logprobs]
"""`query(target, prompt, with_adapter)`. Raises `Unavailable`, `NotFound`, `CheckFailed`."""


def query_vllm(target: EngineTarget, prompt: str, with_adapter: bool) -> Logprobs:
    body = {
        "model": target.adapter if with_adapter else target.base,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": _TOP,
        "return_tokens_as_token_ids": True,
    }
    found = _post(target, "/v1/completions", body)
    top = _at(found, "choices", 0, "logprobs", "top_logprobs", 0)
    return {int(token.removeprefix("token_id:")): float(odds) for token, odds in top.items()}


def query_sglang(target: EngineTarget, prompt: str, with_adapter: bool) -> Logprobs:
    body = {
        "text": prompt,
        "sampling_params": {"temperature": 0, "max_new_tokens": 1},
        "return_logprob": True,
        "top_logprobs_num": _TOP,
        **({"lora_path": target.adapter} if with_adapter else {}),
    }
    found = _post(target, "/generate", body)
    top = _at(found, "meta_info", "output_top_logprobs", 0)
    return {int(token): float(odds) for odds, token, *_ in top}


def query_llamacpp(target: EngineTarget, prompt: str, with_adapter: bool) -> Logprobs:
    number = _number_in_llamacpp(target)
    body = {
        "prompt": prompt,
        "n_predict": 1,
        "temperature": 0,
        "n_probs": _TOP,
        "cache_prompt": False,
        "logit_bias": [
            ["a", 1000]
        ],  # the sampled token: it has no logprobs for tokens that are parts of a character
        "lora": [{"id": number, "scale": 1.0 if with_adapter else 0.0}],
    }
    found = _post(target, "/completion", body)
    top = _at(found, "completion_probabilities", 0, "top_logprobs")
    return {int(one["id"]): float(one["logprob"]) for one in top}


QUERY_BY_ENGINE: Mapping[str, QueryLogprobs] = {
    "vllm": query_vllm,
    "sglang": query_sglang,
    "llama.cpp": query_llamacpp,
}


def _number_in_llamacpp(target: EngineTarget) -> int:
    """The number of the adapter that the user gave by number or by part of its path; otherwise that of the
    only adapter.
    """
    listed = _answer(target, "GET", "/lora-adapters", None)
    numbers = {int(one["id"]): str(one.get("path", "")) for one in listed if isinstance(one, dict)}
    if target.adapter.isdecimal() and int(target.adapter) in numbers:
        return int(target.adapter)
    fitting = [number for number, path in numbers.items() if len(numbers) == 1 or target.adapter in path]
    if len(fitting) != 1:
        shown = ", ".join(f"{number} ({path})" for number, path in numbers.items()) or "none"
        raise NotFound(f"{target.url} has these adapters: {shown}; choose one: --model NUMBER")
    return fitting[0]


def _post(target: EngineTarget, path: str, body: Mapping[str, Any]) -> Any:
    return _answer(target, "POST", path, body)


def _answer(target: EngineTarget, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
    """The JSON of an answer. (`Any`: JSON.)"""
    url = check_url(target.url)
    headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
    try:
        answer = open_pool(url, None, None).request(
            method, url + path, json=body, headers=headers, timeout=_SECONDS, retries=False, redirect=False
        )
    except (HTTPError, OSError) as error:
        raise Unavailable(f"{url} does not answer: {plain_reason(error)}") from error
    if answer.status != 200:
        text = answer.data[:600].decode("utf-8", "replace")
        kind = NotFound if answer.status == 404 else Unavailable if answer.status >= 500 else CheckFailed
        raise kind(f"{url}{path} answered {answer.status}: {text}")
    try:
        return strictjson.loads(answer.data, _LIMITS, path)
    except Invalid as error:
        raise Unavailable(f"{url}{path} did not answer with JSON: {error.message}") from error


def _at(found: Any, *path: str | int) -> Any:
    """The value at a path in a response. Raises `Unavailable` if it is missing, since this is another version
    or another engine.
    """
    for step in path:
        try:
            found = found[step]
        except (KeyError, IndexError, TypeError):
            raise Unavailable(
                f"the engine's answer has no {'.'.join(map(str, path))}; it may be another engine,"
                " or one that returns no logprobs"
            ) from None
    return found
