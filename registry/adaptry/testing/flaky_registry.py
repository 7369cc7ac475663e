"""Registries whose connections break, for tests of transfers. Stored content is real; only connections
fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from adaptry.adapters.content import Content
from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.records import UploadInfo
from adaptry.storage.local import LocalRegistry
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.files import LocalFiles
from adaptry.storage.local.uploads import LocalUploads

StreamChange = Callable[[Iterable[bytes]], Iterator[bytes]]

NO_WAIT = RetryPolicy(tries=3, first_wait=0)
"""Retries without waiting."""


@dataclass(frozen=True)
class RemoteUploads(LocalUploads):
    """Uploads that receive files one by one, as over a connection."""

    def ingest(self, owner: AdapterName, content: Content, progress: Progress = no_progress) -> None:
        return None


@dataclass(frozen=True)
class _FlakyUploads(RemoteUploads):
    cut: StreamChange
    lose_answer: Callable[[], None]

    def append(
        self, upload: UploadInfo, offset: int, chunks: Iterable[bytes], length: int | None = None
    ) -> UploadInfo:
        return super().append(upload, offset, self.cut(chunks))

    def put_all(self, owner: AdapterName, contents: Sequence[bytes]) -> None:
        super().put_all(owner, [b"".join(self.cut([data])) for data in contents])
        self.lose_answer()


@dataclass(frozen=True)
class ChangedReads(LocalFiles):
    """The files of a local registry; each stream passes through `change`."""

    change: StreamChange

    def read(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self.change(super().read(name, revision, path, start))


class FlakyRegistry(LocalRegistry):
    """Breaks each of the next `cuts` uploads or reads after a chunk, and loses the answers to the next
    `lost_answers` requests that store small files; `sent` counts bytes both ways.
    """

    cuts = 0
    lost_answers = 0
    sent = 0

    def __init__(self, context: RegistryContext) -> None:
        super().__init__(context)
        self.uploads = _FlakyUploads(context, self._cut, self._lose_answer)
        self.files = ChangedReads(context, self._cut)

    def _lose_answer(self) -> None:
        if self.lost_answers:
            self.lost_answers -= 1
            raise Unavailable("the answer was lost")

    def _cut(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        breaks = self.cuts > 0
        self.cuts -= breaks
        for number, chunk in enumerate(chunks):
            if breaks and number == 1:
                raise Unavailable("the connection broke")
            self.sent += len(chunk)
            yield chunk


class TamperingRegistry(LocalRegistry):
    """Passes every chunk that is read through `tamper`."""

    tamper: Callable[[bytes], bytes] = staticmethod(bytes)

    def __init__(self, context: RegistryContext) -> None:
        super().__init__(context)
        self.files = ChangedReads(context, lambda chunks: map(self.tamper, chunks))
