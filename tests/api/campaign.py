"""Calls every operation of the OpenAPI description with generated requests, with and without a token.

No call may cause a server error.

    python -m tests.api.campaign --calls 50000 --folder FOLDER [--seed 19]

Resources that earlier calls may have deleted are restored before each operation. Prints a line for each
operation, then every call with a 5xx response; the exit code is 1 if there was any. The same seed makes the
same calls.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from adaptry.adapters.adapter import open_dir
from adaptry.operations.transfer import push
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

from .test_schema import SHORTLY, is_long

Operation = APIOperation[Any, Any, Any, Any]
Answers = Counter[tuple[int, str]]
"""How often each status came; with a failure, how to repeat the call."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.api.campaign", description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--folder", type=Path, required=True, help="Folder for the servers' data.")
    asked = parser.parse_args()
    with served(asked.folder) as server:
        names = varied = [operation.label for operation in operations_of(server)]
    total, failures, round_ = 0, list[str](), 0
    while total < asked.calls and varied:
        share = -(-(asked.calls - total) // (2 * len(varied)))
        found = dict(try_all(asked.folder, varied, share, asked.seed + round_))
        total += sum(sum(answers.values()) for answers in found.values())
        failures += [text for answers in found.values() for status, text in answers if status >= 500]
        # An operation without parameters has no further different calls.
        varied = [name for name in varied if sum(found[name].values()) >= 2 * share]
        round_ += 1
    print(*failures, sep="\n")
    print(f"{total:,} calls of {len(names)} operations, {len(failures)} answered with 5xx")
    return 1 if failures else 0


def try_all(folder: Path, names: list[str], calls: int, seed_: int) -> Iterator[tuple[str, Answers]]:
    for some in batches(names):
        with served(folder) as server:
            for name in some:
                yield name, try_operation(server, name, calls, seed_)


def batches(names: list[str]) -> list[list[str]]:
    """Operations grouped by the server that they share: one that may stop others is alone, the rest are in
    groups of twenty.
    """
    alone = [name for name in names if "quotas" in name or "principals" in name]
    others = [name for name in names if name not in alone]
    return [[name] for name in alone] + [others[at : at + 20] for at in range(0, len(others), 20)]


def try_operation(server: Server, name: str, calls: int, seed_: int) -> Answers:
    """Makes `calls` calls without a valid token, then as many with an administrator's."""
    real, token = prepare(server, name)
    operation = next(one for one in operations_of(server) if one.label == name)
    found = [attack(operation, real, each, calls, seed_) for each in (None, token)]
    for title, answers in zip((" without a token", ""), found, strict=True):
        statuses: Counter[int] = Counter()
        for (status, _), count in answers.items():
            statuses[status] += count
        print(f"{name}{title}: {dict(sorted(statuses.items()))}", flush=True)
    return found[0] + found[1]


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        tiny_lora(place / "lora")
        with running_server(ServerSettings(data=place / "data", anonymous_read=True)) as server:
            yield server


def prepare(server: Server, name: str) -> tuple[dict[str, str], str]:
    """Restores acme/tone@prod if earlier calls changed it. Returns the values by which addresses name it, and
    a new administrator's token.
    """
    token = server.token(f"for {name}", "admin", ("*",))
    options = PushOptions(alias="prod", metrics={"f1": 0.5})
    lora = open_dir(server.data.parent / "lora")
    pushed = push(server.registry(token), lora, "acme/tone", options=options)
    revision = str(pushed.version.digest)
    named = {"namespace": "acme", "name": "tone", "selector": "prod", "alias": "prod"}
    return named | {"revision": revision, "path": "adapter_config.json"}, token


def operations_of(server: Server) -> list[Operation]:
    schema = schemathesis.openapi.from_url(f"{server.url}/api/v1/openapi.json")
    return [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]


def attack(operation: Operation, real: dict[str, str], token: str | None, calls: int, seed_: int) -> Answers:
    answers: Answers = Counter()
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    @seed(seed_)
    @settings(
        max_examples=calls,
        database=None,
        deadline=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), is_real=st.booleans())
    def try_one(case: schemathesis.Case[Any], is_real: bool) -> None:
        if is_real:
            case.path_parameters |= {key: real[key] for key in case.path_parameters if key in real}
            case.headers.pop("Authorization", None)  # otherwise it would be a random one
        if "wait" in case.query and is_long(case.query["wait"]):
            case.query["wait"] = SHORTLY
        answer = case.call(headers=headers)
        text = case.as_curl_command(headers=headers) if answer.status_code >= 500 else ""
        answers[answer.status_code, text] += 1

    try_one()
    return answers


if __name__ == "__main__":
    sys.exit(main())
