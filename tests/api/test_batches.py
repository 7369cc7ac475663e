"""Requests that are answered in batches by few threads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from pydantic import TypeAdapter

from adaptry_api.batches import BatchThreads


def double(numbers: Sequence[object]) -> Sequence[int]:
    """Fails for all if one is not a number."""
    return [2 * TypeAdapter(int).validate_python(number) for number in numbers]


def test_an_error_that_cannot_be_copied_ends_no_thread() -> None:
    threads = BatchThreads[object, int]("numbers", double, threads=1, together=8)

    async def ask() -> list[int | BaseException]:
        failed = await asyncio.gather(threads.run("a"), threads.run("b"), return_exceptions=True)
        return [*failed, await asyncio.wait_for(threads.run(4), 30)]

    *failed, answer = asyncio.run(ask())
    threads.close()
    assert answer == 8
    for error in failed:
        with pytest.raises(Exception, match="valid integer"):
            raise error if isinstance(error, BaseException) else AssertionError
