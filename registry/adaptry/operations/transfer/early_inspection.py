"""Inspects an adapter's weights before they are uploaded, while its files are hashed.

Every registry inspects what it admits. If the registry is on another machine, finding NaN here first saves an
upload of gigabytes that would be refused. The finding and its text are the same.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.inspection.process import LARGE
from adaptry.checks.weights import check_weights
from adaptry.core.errors import CheckFailed, Unavailable
from adaptry.core.report import CheckReport, Finding
from adaptry.registry.interface import Registry
from adaptry.registry.versions import MAX_SENT


@contextmanager
def inspect_early(
    registry: Registry, adapter: Adapter, *, is_one_request: bool = False, is_forced: bool = False
) -> Iterator[Callable[[], None]]:
    """Inspects while the block runs. Raises `CheckFailed` at its end if the registry would refuse the
    weights; yields a function that raises it as soon as that is known.

    Does nothing if the registry is on this machine, if the push is forced, or if the registry's own
    inspection is done sooner: for small files that `is_one_request` sends, and for large ones if numpy is
    missing.
    """
    if registry.is_on_this_machine or is_forced or not _is_worthwhile(adapter, is_one_request):
        yield lambda: None
        return
    with ThreadPoolExecutor(1, "first-look") as thread:
        looking = thread.submit(check_weights, adapter)

        def require_sound() -> None:
            if looking.done():
                _require_unblocked(looking)

        yield require_sound
        _require_unblocked(looking)


def _require_unblocked(looking: Future[list[Finding]]) -> None:
    """Raises `CheckFailed` if the weights would be refused. If the inspection failed, the registry's own
    inspection decides.
    """
    try:
        report = CheckReport(findings=tuple(looking.result()))
    except Unavailable:
        return
    if report.is_blocked:
        raise CheckFailed(report.sentence())


def _is_worthwhile(adapter: Adapter, is_one_request: bool) -> bool:
    size = sum(adapter.content.sizes.values())
    if is_one_request and size <= MAX_SENT:
        return False
    return size < LARGE or importlib.util.find_spec("numpy") is not None
