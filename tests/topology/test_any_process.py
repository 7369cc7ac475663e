"""Whichever process is killed, at whichever step: acknowledged changes exist, no partial result is visible,
and jobs end once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import Conflict, NotFound, Unavailable
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AliasInfo, Event
from adaptry.testing.samples import tiny_lora

from .merging import assert_ended_once, begun, ordered
from .processes import TopologyProcesses
from .repeated_operations import RepeatedOperation, patiently
from .trainer import Trainer, weights

PROCESSES = ("api-1", "api-2", "balancer", "postgres", "s3", "runner-1", "runner-2")
QUICK = {("push", "api-1"), ("promote", "postgres")}


def amid_pushes(running: TopologyProcesses, service: str, folder: Path) -> None:
    with Trainer(running.registry(), AdapterName.parse(f"acme/pushed-{service}"), folder) as pushing:
        pushing.wait_for_more()
        running.hurt(service)
        pushing.wait_for_more()
    pushing.check()


def amid_promotions(running: TopologyProcesses, service: str, folder: Path) -> None:
    with Promoter(running.registry(), AdapterName.parse(f"acme/promoted-{service}"), folder) as promoting:
        promoting.wait_for_more(5)
        running.hurt(service)
        promoting.wait_for_more(5)
    promoting.check()


def amid_pulls(running: TopologyProcesses, service: str, folder: Path) -> None:
    with Puller(running.registry(), AdapterName.parse(f"acme/pulled-{service}"), folder) as pulling:
        pulling.wait_for_more()
        running.hurt(service)
        pulling.wait_for_more()


def amid_a_merge(running: TopologyProcesses, service: str, folder: Path) -> None:
    registry, name = running.registry(), f"without-{service}"
    job = ordered(registry, folder, name)
    begun(registry, job)
    running.hurt(service)
    assert_ended_once(registry, job, folder, name)


STEPS: dict[str, Callable[[TopologyProcesses, str, Path], None]] = {
    "push": amid_pushes,
    "promote": amid_promotions,
    "pull": amid_pulls,
    "merge": amid_a_merge,
}


@pytest.mark.parametrize(
    ("step", "service"),
    [
        pytest.param(step, service, marks=() if (step, service) in QUICK else pytest.mark.heavy)
        for step in STEPS
        for service in PROCESSES
    ],
)
def test_killing_any_process_at_any_step_loses_nothing(
    running: TopologyProcesses, tmp_path: Path, step: str, service: str
) -> None:
    STEPS[step](running, service, tmp_path)


class Promoter(RepeatedOperation):
    """A client that moves `prod` back and forth between two versions, and reads the alias again if a response
    was lost.
    """

    def __init__(self, registry: HttpRegistry, name: AdapterName, folder: Path) -> None:
        super().__init__()
        self._registry = registry
        self._name = name
        self._versions = [
            push(registry, open_dir(tiny_lora(folder / f"lora-{seed}", seed=seed)), name).version.digest
            for seed in (1, 2)
        ]
        self._known: dict[int, Digest] = {}
        self._seen: AliasInfo | None = None

    def once(self, turn: int) -> None:
        to = self._versions[turn % 2]
        while True:
            try:
                was = self._seen.generation if self._seen else None
                self._seen = self._registry.aliases.move(self._name, "prod", to, was)
            except (Unavailable, Conflict):
                self._seen = patiently(self._look)
                if self._seen is None or self._seen.digest != to:
                    continue
            self._known[self._seen.generation] = to
            return

    def _look(self) -> AliasInfo | None:
        return next((one for one in self._registry.aliases.list(self._name) if one.alias == "prod"), None)

    def check(self) -> None:
        """Asserts that every acknowledged move is in the history, without gaps, and that `prod` points at the
        version of the last one.
        """
        moves: list[Event] = []
        page = self._registry.adapters.history(self._name, limit=200)
        while True:
            moves += [event for event in page.items if event.kind == "alias.moved"]
            if page.next is None:
                break
            page = self._registry.adapters.history(self._name, cursor=page.next, limit=200)
        made = {int(move.detail["generation"]): Digest.parse(move.detail["to"]) for move in moves}
        assert sorted(made) == list(range(1, len(moves) + 1))
        assert {generation: made[generation] for generation in self._known} == self._known
        now = self._look()
        assert now
        assert (now.generation, now.digest) == (len(moves), made[len(moves)])


class Puller(RepeatedOperation):
    """A client that pulls one version into one folder after another; a failed pull leaves no folder."""

    def __init__(self, registry: HttpRegistry, name: AdapterName, folder: Path) -> None:
        super().__init__()
        self._registry = registry
        self._name = name
        self._to = folder / "pulled"
        self._to.mkdir()
        lora = tiny_lora(folder / "lora")
        push(registry, open_dir(lora), name)
        self._content = weights(lora)

    def once(self, turn: int) -> None:
        folder = self._to / str(turn)
        patiently(lambda: self._pull(folder))
        assert weights(folder) == self._content

    def _pull(self, folder: Path) -> None:
        try:
            pull(self._registry, f"{self._name}@1", folder)
        except Unavailable:
            assert not folder.exists()
            raise
        except NotFound as error:  # a pushed version is never reported as missing, whichever process is down
            raise AssertionError(f"{error}") from error
