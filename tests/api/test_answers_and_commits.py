"""However reads, checks of the last commit and commits interleave, no response computed before a commit is
served after it.

PostgreSQL is replaced by a counter of commits, since only the order of events on the event loop matters.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable

import pytest

from adaptry.core.identity import Identity
from adaptry_api.answer_cache import AnswerCache
from adaptry_api.commit_watch import CommitWatch

READER = Identity.with_role("ann", "reader", ("*",))
PATHS = ("/one", "/two", "/three", "/four", "/five")


class CountingProbe:
    """Records the number of commits at each query; `answers` returns these numbers."""

    def __init__(self) -> None:
        self.commits = 0
        self._asked: list[str] = []
        self._socket, self._other = os.pipe()

    def fileno(self) -> int:
        return self._socket

    def ask(self) -> None:
        self._asked.append(f"1 {self.commits}")
        os.write(self._other, b"x")

    def answers(self) -> list[str]:
        answers, self._asked = self._asked, []
        os.read(self._socket, len(answers))
        return answers

    def close(self) -> None:
        os.close(self._socket)
        os.close(self._other)


class CountingCatalog:
    """A catalog whose answer to every read is the number of commits."""

    is_local = False

    def __init__(self) -> None:
        self.probe = CountingProbe()

    def open_probe(self) -> CountingProbe:
        return self.probe

    def last_commit(self) -> None:
        return None

    def read_with_snapshot(
        self, read: Callable[[], int], *, is_search: bool, about: object
    ) -> tuple[int, str]:
        return read(), f"2 {self.probe.commits}"


@pytest.mark.parametrize("seed", range(40))
def test_no_answer_is_older_than_a_commit_before_its_request(seed: int) -> None:
    source, catalog = random.Random(seed), CountingCatalog()
    watch = CommitWatch(catalog)  # type: ignore[arg-type]
    cache = AnswerCache[int](watch)
    found_at_once = 0

    async def pause(most: int = 6) -> None:
        for _ in range(source.randrange(most)):
            await asyncio.sleep(0)

    async def ask(path: str) -> None:
        nonlocal found_at_once
        await pause(40)
        before = catalog.probe.commits
        presumed = watch.last_known()
        kept = cache.peek_at(path, READER, presumed) if source.random() < 0.5 else None
        if kept is not None:  # held until the commit is known
            known: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            watch.ask(known.set_result)
            if await known == presumed:
                found_at_once += 1
                assert kept >= before
                return
        kept = await cache.get(path, READER)
        if kept is not None:
            assert kept >= before
            return
        read = watch.with_commit(lambda: catalog.probe.commits)
        await pause()
        answer, commit = read()
        await pause()
        assert answer >= before
        cache.put(path, READER, answer, commit)

    async def change() -> None:
        for _ in range(4):
            await pause(12)
            catalog.probe.commits += 1

    async def act() -> None:
        async with asyncio.timeout(60):
            while await watch.last_commit() is None:
                await asyncio.sleep(0)
            for _ in range(40):
                await asyncio.gather(change(), *(ask(source.choice(PATHS)) for _ in range(30)))
            await asyncio.gather(*(ask(path) for path in PATHS * 3))
            await asyncio.gather(*(ask(path) for path in PATHS * 20))
            watch.close()
            await asyncio.sleep(0)

    asyncio.run(act())
    assert found_at_once
