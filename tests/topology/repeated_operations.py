"""Clients that repeat one operation while a process of the topology is killed."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self, TypeVar

from adaptry.core.errors import Unavailable

Given = TypeVar("Given")


def patiently(call: Callable[[], Given]) -> Given:
    """The result of a call that is repeated for up to a minute while the server asks to try again."""
    end = time.monotonic() + 60
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class RepeatedOperation(ABC):
    """A client that repeats one operation for as long as the block lasts. An error of it fails the block."""

    def __init__(self) -> None:
        self._more = threading.Condition()
        self._done = 0
        self._is_over = False
        self._thread = threading.Thread(target=self._work)
        self._failure: BaseException | None = None

    @abstractmethod
    def once(self, turn: int) -> None:
        """Performs the operation for the `turn`-th time, counted from 1; calls do not overlap."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        if self._failure:
            raise self._failure

    def wait_for_more(self, count: int = 3) -> None:
        with self._more:
            goal = self._done + count
            assert self._more.wait_for(lambda: self._done >= goal or self._failure is not None, 90)

    def _work(self) -> None:
        turn = 0
        try:
            while not self._is_over:
                turn += 1
                self.once(turn)
                with self._more:
                    self._done += 1
                    self._more.notify_all()
        except BaseException as error:  # noqa: BLE001  told to who waits
            self._failure = error
            with self._more:
                self._more.notify_all()
