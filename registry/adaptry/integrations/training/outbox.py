"""The outbox of a training run: one thread pushes in order, and retries while the registry is down.

Training never waits for the outbox and never fails because of it. Adapters that could not be pushed are kept
as folders and reported at the end.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import field
from pathlib import Path

from adaptry.adapters.folder_listing import list_folder
from adaptry.core.errors import AdaptryError, CheckFailed, Unavailable
from adaptry.core.lazy_dataclass import dataclass

PushWork = Callable[[Path], None]


@dataclass(slots=True)
class PendingPush:
    """A snapshot of a folder's files, and the push to run on it. `error`: why the push has not succeeded."""

    title: str
    folder: Path
    work: PushWork
    error: AdaptryError | None = field(default=None)


class Outbox:
    """A queue of pending pushes. A refused push is set aside; while the registry is down, all pushes wait.

    `warn` is called with each problem, from another thread. `retry` is the pause between attempts in seconds.
    """

    def __init__(self, warn: Callable[[str], None], retry: float = 15.0) -> None:
        self._warn, self._retry = warn, retry
        self._root = Path(tempfile.mkdtemp(prefix="adaptry-outbox-"))
        self._waiting: deque[PendingPush] = deque()
        self._failed: list[PendingPush] = []
        self._changed = threading.Condition()
        self._is_closed = self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="adaptry-outbox", daemon=True)
        self._thread.start()

    def enqueue(self, title: str, folder: Path | None, work: PushWork) -> None:
        """Copies the adapter's files in `folder`, if given; the folder may be changed or deleted afterwards.

        Raises `NotFound`, `Unsupported` if there is no adapter, `OSError` if the disk is full.
        """
        place = Path(tempfile.mkdtemp(dir=self._root))
        if folder is not None:
            _copy(folder, place)
        with self._changed:
            self._waiting.append(PendingPush(title, place, work))
            self._changed.notify_all()

    def drain(self, timeout: float) -> tuple[PendingPush, ...]:
        """Waits up to `timeout` seconds for the queue to empty. Returns the pushes that did not succeed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._is_abandoned = True
            self._changed.notify_all()
            left = (*self._failed, *self._waiting)
        if not left:
            shutil.rmtree(self._root, ignore_errors=True)
        return left

    def _run(self) -> None:
        while True:
            pending = self._next()
            if pending is None:
                return
            if not self._try_push(pending):
                with self._changed:
                    self._changed.wait(self._retry)

    def _next(self) -> PendingPush | None:
        """The next pending push; None when the outbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            return self._waiting[0] if self._waiting and not self._is_abandoned else None

    def _try_push(self, pending: PendingPush) -> bool:
        """Runs one push. Returns False if it should be tried again."""
        is_refused = False
        try:
            pending.work(pending.folder)
        except Unavailable as error:
            if pending.error is None:
                self._warn(f"{pending.title} waits for the registry: {error.message}")
            pending.error = error
            return False
        except AdaptryError as error:
            pending.error, is_refused = error, True
        except Exception as error:  # noqa: BLE001  later pushes must still run
            pending.error, is_refused = CheckFailed(f"{type(error).__name__}: {error}"), True
        if is_refused and pending.error:
            self._warn(f"{pending.title} was not pushed: {pending.error.message}")
        with self._changed:
            self._waiting.popleft()
            if is_refused:
                self._failed.append(pending)
        if not is_refused:
            shutil.rmtree(pending.folder, ignore_errors=True)
        return True


def _copy(folder: Path, place: Path) -> None:
    for path in list_folder(folder).kept:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / path, place / path)
