"""Registries whose connection breaks, to test transfers. Stored content is real; only connections fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from adaptry.core.digest import Digest
from adaptry.core.errors import Unavailable
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer.retry import RetryPolicy
from adaptry.registry.records import UploadInfo
from adaptry.storage.local import LocalRegistry

NO_WAIT = RetryPolicy(tries=3, first_wait=0)
"""Retries without waiting."""


class FlakyRegistry(LocalRegistry):
    """Breaks each of the next `cuts` uploads or reads after a chunk; `sent` counts bytes both ways."""

    cuts = 0
    sent = 0

    def append_upload(self, upload: UploadInfo, offset: int, chunks: Iterable[bytes]) -> UploadInfo:
        return super().append_upload(upload, offset, self._cut(chunks))

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return self._cut(super().read_file(name, revision, path, start))

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

    def read_file(self, name: AdapterName, revision: Digest, path: str, start: int = 0) -> Iterator[bytes]:
        return (self.tamper(chunk) for chunk in super().read_file(name, revision, path, start))
