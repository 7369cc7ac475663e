"""Evaluates conditions and reads samples files in a child process with limits.

Both come from clients. CEL has no time limit and holds the interpreter's lock, and a samples file may be
large. Needs the extra `gates`: without it, no decision with a condition can be made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from pydantic import TypeAdapter

from adaptry.core.errors import Invalid, MissingDependency, Unavailable
from adaptry.core.evidence import lm_eval
from adaptry.core.gates.evaluation import ConditionResult, evaluate
from adaptry.core.gates.expression import PolicyCondition
from adaptry.core.gates.facts import GateFacts
from adaptry.core.gates.type_check import check_types
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import run_in_worker

MAX_SAMPLES = 128 << 20
"""Bytes of a samples file that is paired by document."""
_LIMITS = ProcessLimits(20.0, 8 << 30, answer=32 << 20)
_NEEDED = ("cel", "scipy")
_REFUSED, _ANSWERED = b"!", b"="
_RESULTS = TypeAdapter(tuple[ConditionResult, ...])


def require_installed() -> None:
    """Raises `MissingDependency`, with the command that installs what is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"conditions of aliases cannot be evaluated: {' and '.join(missing)} is missing where the"
            " registry runs; install it there with: pip install 'adaptry[gates]'"
        )


def evaluate_in_child(conditions: Sequence[str], facts: GateFacts) -> tuple[ConditionResult, ...]:
    """Evaluates conditions in a child process. Raises `Invalid` for a condition that cannot be read,
    `MissingDependency`, `Unavailable`.
    """
    request = {"conditions": list(conditions), "facts": facts.model_dump(mode="json")}
    return _RESULTS.validate_json(_run("evaluate", json.dumps(request).encode()))


def check_conditions(conditions: Sequence[str]) -> None:
    """Raises `Invalid` for the first condition that CEL cannot compute, and the errors of
    `evaluate_in_child`.
    """
    _run("check", json.dumps(list(conditions)).encode())


def read_scores(samples: bytes, metric: str, filter: str | None) -> Mapping[str, float]:
    """The score of each document in a samples file of lm-eval, by its hash; the mean of repetitions.

    Raises `Invalid` for a malformed file, `MissingDependency`, `Unavailable`.
    """
    scores: dict[str, float] = json.loads(_run("scores", samples, metric, filter or "none"))
    return scores


def _run(what: str, data: bytes, *arguments: str) -> bytes:
    require_installed()
    try:
        found = run_in_worker("adaptry.core.gates.process", data, _LIMITS, [what, *arguments])
    except ProcessTimeout:
        raise Invalid(f"evaluating conditions takes more than {_LIMITS.seconds:.0f} s") from None
    except ProcessFailed as error:
        raise Unavailable(f"conditions could not be evaluated: {error}; try again") from error
    if found.startswith(_REFUSED):
        raise Invalid(found[1:].decode())
    return found[1:]


def answer(data: bytes, what: str, *arguments: str) -> bytes:
    """Runs in the child: the answer, or the message of an `Invalid`."""
    try:
        return _ANSWERED + _ACTIONS[what](data, *arguments)
    except Invalid as error:
        return _REFUSED + error.message.encode("utf-8", "replace")


def _evaluate(data: bytes) -> bytes:
    request = json.loads(data)
    conditions = [PolicyCondition.stored(text) for text in request["conditions"]]
    return _RESULTS.dump_json(evaluate(conditions, GateFacts.model_validate(request["facts"])))


def _check(data: bytes) -> bytes:
    for text in json.loads(data):
        try:
            check_types(PolicyCondition.parse(text))
        except Invalid as error:
            raise Invalid(f"{error.message}, in the condition {text[:100]!a}") from None
    return b""


def _scores(data: bytes, metric: str, filter: str) -> bytes:
    found: dict[str, list[float]] = {}
    for one in lm_eval.read_samples(data.split(b"\n"), "the samples file"):
        if one.filter == filter and metric in one.scores:
            found.setdefault(one.key, []).append(one.scores[metric])
    return json.dumps({key: sum(values) / len(values) for key, values in found.items()}).encode()


_ACTIONS: Mapping[str, Callable[..., bytes]] = {"evaluate": _evaluate, "check": _check, "scores": _scores}
