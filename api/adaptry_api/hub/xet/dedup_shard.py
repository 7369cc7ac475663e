"""The response to a query for a chunk: a shard that lists xorbs with their chunks, and no files.

The format is xet-core's `MDBShardInfo`: a header, no files, the xorbs, no look-up tables (clients build their
own), a footer. Chunk hashes are not keyed (`chunk_hash_hmac_key` is zero): a caller who may query may also
read the files.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from adaptry_api.hub.xet.chunk_tables import ChunkTable
from adaptry_api.hub.xet.hashes import bytes_of
from adaptry_api.hub.xet.shard import BOOKEND, TAG, VERSION

SHARD_MEDIA_TYPE = "application/octet-stream"
_FOOTER = struct.Struct("<9Q32sQQ48sQQQQ")
_FOOTER_VERSION = 1
_XORB = struct.Struct("<32sIIII")  # hash, flags, chunks, bytes, bytes on disk
_CHUNK = struct.Struct("<32sIIII")  # hash, begin, bytes, flags, unused


def dedup_shard(xorbs: Iterable[tuple[str, ChunkTable]], now: int, until: int) -> bytes:
    """The shard; clients drop it at the Unix time `until`."""
    body = bytearray(TAG + struct.pack("<QQ", VERSION, _FOOTER.size))
    files_at = len(body)
    body += BOOKEND
    xorbs_at, size = len(body), 0
    for hash, table in xorbs:
        body += _XORB.pack(bytes_of(hash), 0, len(table), table.size, table.size)
        begin = 0
        for chunk, length in table:
            body += _CHUNK.pack(chunk, begin, length, 0, 0)
            begin += length
        size += table.size
    body += BOOKEND
    end = len(body)
    lookups = (end, 0, end, 0, end, 0)
    sizes = (size, size, size)
    body += _FOOTER.pack(
        _FOOTER_VERSION, files_at, xorbs_at, *lookups, bytes(32), now, until, bytes(48), *sizes, end
    )
    return bytes(body)
