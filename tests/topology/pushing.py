"""A client that is told "try again" and does, and a trainer that pushes one adapter after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from adaptry.adapter.view import open_dir
from adaptry.client import HttpRegistry
from adaptry.errors import Unavailable
from adaptry.refs import AdapterName, Ref
from adaptry.registry import Registry
from adaptry.testing.samples import tiny_lora
from adaptry.transfer import pull, push

Given = TypeVar("Given")


def patiently(call: Callable[[], Given]) -> Given:
    """What a client that is told "try again" does, for a minute."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Pushing:
    """A trainer that pushes one adapter after another, for as long as the block lasts; `known` is what was acknowledged."""

    def __init__(self, registry: HttpRegistry, name: AdapterName, folder: Path) -> None:
        self.known: list[tuple[int, bytes]] = []
        self._registry = registry
        self._name = name
        self._folder = folder
        self._more = threading.Condition()
        self._is_over = False
        self._thread = threading.Thread(target=self._work)
        self._failure: BaseException | None = None

    def __enter__(self) -> Pushing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        if self._failure:
            raise self._failure

    def wait_for_more(self, count: int = 3) -> None:
        with self._more:
            goal = len(self.known) + count
            assert self._more.wait_for(lambda: len(self.known) >= goal or self._failure is not None, 90)

    def _work(self) -> None:
        seed = 0
        try:
            while not self._is_over:
                seed += 1
                adapter = open_dir(tiny_lora(self._folder / f"lora-{seed}", seed=seed))
                pushed = patiently(lambda: push(self._registry, adapter, self._name))  # noqa: B023  called at once
                with self._more:
                    self.known.append((pushed.version.number, weights(self._folder / f"lora-{seed}")))
                    self._more.notify_all()
        except BaseException as error:  # noqa: BLE001  told to who waits
            self._failure = error
            with self._more:
                self._more.notify_all()


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def assert_nothing_lost(
    registry: Registry, name: AdapterName, known: list[tuple[int, bytes]], to: Path
) -> None:
    """Each acknowledged push is its own version, once; each version that is shown can be had, whole."""
    numbers = [number for number, _ in known]
    assert numbers == list(range(1, len(known) + 1))
    shown, page = [], registry.versions(name)
    while True:
        shown += [version.number for version in page.items]
        if page.next is None:
            break
        page = registry.versions(name, cursor=page.next)
    assert sorted(shown) == numbers
    for number, content in known[-8:]:
        folder = to / f"pulled-{number}"
        pull(registry, Ref.parse(f"{name}@{number}"), folder)
        assert weights(folder) == content
