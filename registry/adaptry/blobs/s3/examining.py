"""What a server of a bucket lacks, found by trying. Leaves nothing behind; what it cannot delete is swept like an upload."""

from __future__ import annotations

import secrets
from contextlib import suppress

from adaptry.blobs.s3 import segments
from adaptry.blobs.s3.composing import compose
from adaptry.blobs.s3.objects import Objects
from adaptry.blobs.s3.place import Place
from adaptry.blobs.s3.segments import LEAST_PART, Segment
from adaptry.errors import AdaptryError, Unavailable

_SIZE = LEAST_PART


def examine(place: Place) -> tuple[str, ...]:
    """What is missing and what that means, a sentence each; nothing of it makes the store wrong.

    Raises `Unavailable` for a server that cannot be used: no bucket, credentials refused, other bytes than were written.
    """
    objects = Objects(place)
    objects.require()
    key = secrets.token_hex(16)
    name, whole = (segments.new_name(key, 0) for _ in range(2))
    data = secrets.token_bytes(_SIZE)
    try:
        objects.put(name, data)
        if objects.read(name, 100, 1000)[0] != data[100:1100]:
            raise Unavailable(f"{place} answers other bytes than were written; use another server")
        missing = []
        if objects.create(name, b"again") or objects.size(name) != _SIZE:
            missing.append(
                "it takes no notice of If-None-Match: two senders of one upload are not kept apart, which costs work"
            )
        elif not objects.has_conditions:
            missing.append("it has no conditional writes (501): every upload costs a request more")
        compose(objects, whole, [Segment(name, 0, _SIZE)])
        if objects.read(whole, 0, _SIZE)[0] != data:
            raise Unavailable(f"{place} puts parts together wrongly; use another server")
        return tuple(missing)
    finally:
        with suppress(AdaptryError):
            objects.delete([name, whole])
