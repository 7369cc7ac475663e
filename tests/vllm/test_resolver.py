"""The resolver in a real vLLM: it serves what was trained, follows aliases, and refuses withdrawn versions
with the reason.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import base_registry
from adaptry.operations.recall_status import recall_status
from adaptry.operations.transfer import push
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange, VersionInfo

from . import models, vllm_server
from .conftest import Place
from .vllm_server import Answer, Vllm

pytestmark = vllm_server.PYTHON.marks


def logprobs(answer: Answer) -> list[float]:
    found: list[float] = answer.body["choices"][0]["logprobs"]["token_logprobs"]
    return found


def close_to(values: list[float]) -> object:
    return pytest.approx(values, abs=2e-4)


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Waits for the condition. After the timeout, fails and reports it."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} seconds"
        time.sleep(0.05)


def move(place: Place, name: str, to: VersionInfo) -> None:
    adapter = AdapterName.parse(name)
    was = [alias.generation for alias in place.registry.aliases.list(adapter) if alias.alias == "prod"]
    place.registry.aliases.move(adapter, "prod", to.digest, was[0] if was else None)


def test_an_adapter_answers_as_peft_does_and_names_its_version(place: Place, vllm: Vllm) -> None:
    version = place.publish("acme/answers", seed=3)
    move(place, "acme/answers", version)

    answer = vllm.complete("acme/answers@prod", models.PROMPT)

    assert logprobs(answer) == close_to(place.trained(version))
    assert logprobs(vllm.complete(vllm_server.NAME, models.PROMPT)) == close_to(models.said(place.base, None))
    assert answer.model == f"acme/answers@prod@{version.digest.brief}"
    assert version.digest.hex in vllm.names()[answer.model]
    assert logprobs(vllm.complete(answer.model, models.PROMPT)) == close_to(logprobs(answer))
    counted = rf'adaptry_adapter_requests_total\{{[^}}]*digest="{version.digest.brief}"[^}}]*\}} 2\.0'
    assert re.search(counted, vllm.ask("GET", "/metrics").body)


def test_no_answer_is_stale_or_mixed_while_an_alias_moves(place: Place, vllm: Vllm) -> None:
    versions = [place.publish("acme/moves", seed=seed) for seed in (4, 5)]
    trained = {version.digest.brief: place.trained(version) for version in versions}
    move(place, "acme/moves", versions[0])
    answers: list[Answer] = []
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            answers.append(vllm.complete("acme/moves@prod", models.PROMPT))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for to in (versions[1], versions[0], versions[1]):
            move(place, "acme/moves", to)
            until(
                lambda to=to: answers and answers[-1].status == 200 and to.digest.brief in answers[-1].model
            )  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert {answer.status for answer in answers} == {200}
    for answer in answers:
        said = next(brief for brief in trained if brief in answer.model)
        assert logprobs(answer) == close_to(trained[said])
    assert versions[1].digest.brief in vllm.complete("acme/moves@prod", models.PROMPT).model


def test_one_version_under_several_names_at_once_is_answered_right(place: Place, vllm: Vllm) -> None:
    version = place.publish("acme/names", seed=6)
    move(place, "acme/names", version)
    answers: list[Answer] = []

    def ask(name: str) -> None:
        answers.append(vllm.complete(name, models.PROMPT))

    names = ["acme/names", "acme/names@prod", "acme/names@1", f"acme/names@{version.digest.brief}"] * 2
    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == len(names)
    for answer in answers:
        assert logprobs(answer) == close_to(place.trained(version))


def test_more_adapters_than_the_engine_holds_are_answered_right_in_turn(place: Place, vllm: Vllm) -> None:
    versions = {seed: place.publish("acme/many", seed=seed) for seed in (7, 8, 9, 10)}
    trained = {seed: place.trained(version) for seed, version in versions.items()}

    for seed in (7, 8, 9, 10, 7, 8, 9, 10):
        answer = vllm.complete(f"acme/many@{versions[seed].number}", models.PROMPT)
        assert logprobs(answer) == close_to(trained[seed])


@pytest.mark.parametrize("state", ["revoked", "quarantined"])
def test_a_withdrawn_version_is_refused_with_the_reason_and_removed(
    place: Place, vllm: Vllm, state: str
) -> None:
    name = f"acme/{state}"
    version = place.publish(name, seed=11)
    answer = vllm.complete(f"{name}@1", models.PROMPT)
    folder = Path(vllm.names()[answer.model])
    ref = Ref.parse(f"{name}@1")

    change_state(
        place.registry, ref, StateChange.model_validate({"state": state, "reason": "it leaks addresses"})
    )

    until(lambda: vllm.complete(f"{name}@1", models.PROMPT).status == 403)
    assert "it leaks addresses" in vllm.complete(f"{name}@1", models.PROMPT).reason
    assert "it leaks addresses" in vllm.complete(answer.model, models.PROMPT).reason
    assert answer.model not in vllm.names()
    until(lambda: not folder.exists())
    until(lambda: recall_status(place.registry, ref).is_complete)
    assert [one.outcome for one in recall_status(place.registry, ref).lines] == ["dropped"]

    change_state(place.registry, ref, StateChange(state="active", reason="a mistake"))
    until(lambda: vllm.complete(f"{name}@1", models.PROMPT).status == 200)
    assert logprobs(vllm.complete(f"{name}@1", models.PROMPT)) == close_to(place.trained(version))


@pytest.mark.parametrize(
    ("config", "rank", "said"),
    [
        ({}, 32, "its largest rank is 32, but the server's limit is 16"),
        ({"use_dora": True}, 4, "DoRA"),
        ({"bias": "lora_only"}, 4, "bias"),
    ],
    ids=["rank", "dora", "bias"],
)
def test_an_adapter_that_the_engine_does_not_accept_is_refused_before_it_is_loaded(
    place: Place, vllm: Vllm, config: dict[str, object], rank: int, said: str
) -> None:
    name = f"acme/limit-{'-'.join([str(rank), *config])}"
    folder = models.saved_by_peft(place.base, place.folder / name.replace("/", "-"), r=rank, **config)
    push(place.registry, open_dir(folder), name)

    answer = vllm.complete(name, models.PROMPT)

    assert answer.status == 400
    assert said in answer.reason
    assert vllm.ask("GET", "/health").status == 200


@pytest.mark.parametrize("hidden", [64, models.HIDDEN])
def test_an_adapter_of_another_base_is_refused(place: Place, vllm: Vllm, hidden: int) -> None:
    other = models.model(place.folder / f"other-{hidden}", hidden=hidden, seed=1)
    base_registry.register_base(
        place.registry,
        open_checkpoint(other),
        (f"org/other-{hidden}",),
        visibility="internal",
        cache=place.folder / "bases",
    )
    folder = models.adapter(place.folder / f"for-{hidden}", hidden=hidden, base_name=f"org/other-{hidden}")
    push(place.registry, open_dir(folder), f"acme/for-{hidden}")

    answer = vllm.complete(f"acme/for-{hidden}", models.PROMPT)

    assert answer.status == 400
    assert f"was trained on org/other-{hidden}, and this engine serves another model" in answer.reason


def test_an_unknown_name_does_not_exist(place: Place, vllm: Vllm) -> None:
    for name in ("acme/nothing", "acme/nothing@prod", "gpt-4o"):
        assert vllm.complete(name, models.PROMPT).status == 404
