"""Conditions are evaluated in a child process, without delaying other writers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.gates import process
from adaptry.core.gates.evaluation import ConditionResult
from adaptry.core.gates.facts import GateFacts
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.policies import PolicyRequest
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.registry.rollouts import RolloutChange, RolloutPlan
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
POLICY = "alias: prod\nrequire:\n- state() == 'active'\n- fits('vllm')\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[LocalRegistry]:
    """A registry with two versions, the first at prod, which has a policy that both meet."""
    opened = open_local(tmp_path / "registry")
    push(opened, open_dir(tiny_lora(tmp_path / "one", seed=1)), TONE, options=PushOptions(alias="prod"))
    push(opened, open_dir(tiny_lora(tmp_path / "two", seed=2)), TONE)
    opened.policies.set(PolicyRequest(scope="acme/tone", text=POLICY))
    yield opened
    opened.close()


def move(registry: LocalRegistry, folder: Path) -> None:
    registry.aliases.move(TONE, "prod", digest_of(registry, 2), was=1)


def push_with_alias(registry: LocalRegistry, folder: Path) -> None:
    push(registry, open_dir(tiny_lora(folder / "three", seed=3)), TONE, options=PushOptions(alias="prod"))


def start_rollout(registry: LocalRegistry, folder: Path) -> None:
    registry.rollouts.start(TONE, "prod", digest_of(registry, 2), RolloutPlan(steps=(50, 100)))


def advance_rollout(registry: LocalRegistry, folder: Path) -> None:
    """The policy changes between the steps, so that it is evaluated again."""
    start_rollout(registry, folder)
    registry.policies.set(PolicyRequest(scope="acme/tone", text=POLICY + "- state() != 'yanked'\n"))
    info = registry.rollouts.list(TONE)[0]
    assert (
        registry.rollouts.change(TONE, "prod", RolloutChange(to="advance"), info.generation).stage == "done"
    )


@pytest.mark.parametrize("change", [move, push_with_alias, start_rollout, advance_rollout])
def test_other_changes_are_made_while_conditions_are_evaluated(
    registry: LocalRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[LocalRegistry, Path], None],
) -> None:
    created: list[str] = []

    def beside(conditions: Sequence[str], facts: GateFacts) -> tuple[ConditionResult, ...]:
        """Evaluates conditions as usual, after another writer has made a change."""
        name = AdapterName.parse(f"acme/other-{len(created)}")
        writer = threading.Thread(target=registry.adapters.create, args=(name, AdapterEdit()), daemon=True)
        writer.start()
        writer.join(timeout=60)
        assert not writer.is_alive(), "a writer waits for the evaluation"
        created.append(str(name))
        return evaluate(conditions, facts)

    evaluate = process.evaluate_in_child
    monkeypatch.setattr(process, "evaluate_in_child", beside)
    change(registry, tmp_path)
    assert created
    assert [str(one.name) for one in registry.adapters.list("acme").items if "other" in str(one.name)]
    assert (registry.policies.promotions(TONE).items != ()) is (change is not start_rollout)


def digest_of(registry: LocalRegistry, number: int) -> Digest:
    return registry.version(f"acme/tone@{number}").digest
