"""The bytes of small files, which are read together and kept with their snapshot.

Reading a file of a few kilobytes costs less than passing the read to a thread. So the first request for a
small file of a snapshot reads all of its small files. If small files of an adapter have been requested, the
next look-up of the adapter reads them in the same transaction (`SnapshotLookup.note_small_files`).
"""

from __future__ import annotations

from starlette.requests import Request

from adaptry.core.errors import AdaptryError
from adaptry_api.auth_policy import app_state_of
from adaptry_api.hub.snapshots import RepositoryFile, Snapshot

MAX_BYTES = 32 << 10
"""Maximum number of bytes kept with a snapshot."""


async def small_file(request: Request, snapshot: Snapshot, file: RepositoryFile) -> bytes | None:
    """The bytes of a file that a GET request asks for; None if they are not kept and must be streamed.

    A snapshot is kept until any process commits, so its bytes may still be read by this caller, and are not
    known to be damaged.
    """
    if request.method != "GET" or file.size > MAX_BYTES or not snapshot.is_cacheable:
        return None
    state = app_state_of(request)
    if (
        file.path not in snapshot.small_files
        and state.quick_reads.is_available
        and state.blobs.is_on_this_machine
    ):
        await state.quick_reads.run(lambda: keep_small_files(snapshot, file))
    return snapshot.small_files.get(file.path)


def keep_small_files(snapshot: Snapshot, wanted: RepositoryFile | None = None) -> None:
    """Reads files as long as they fit, starting with `wanted`. Raises only the errors of reading `wanted`."""
    room = MAX_BYTES
    for file in sorted(snapshot.files, key=lambda one: (one is not wanted, one.size)):
        room -= file.size
        if room < 0:
            return
        try:
            data = b"".join(snapshot.read(file.path, 0))
        except AdaptryError:
            if file is wanted:
                raise
            continue  # its own request reports it
        if len(data) == file.size:
            snapshot.small_files[file.path] = data
