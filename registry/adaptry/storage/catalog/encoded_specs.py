"""Inserts long specs into the JSON of versions as they are stored, without decoding them.

The spec of 89,088 tensors has 12 MB of JSON, which would become half a million small objects.
"""

from __future__ import annotations

import secrets
import zlib

from adaptry.adapters.spec import Spec
from adaptry.core.value import to_json
from adaptry.storage.catalog.versions import decode_spec

_LARGE_SPEC = 64 << 10  # bytes, compressed: about 5,000 modules


class EncodedSpecs:
    """The long specs of one answer."""

    def __init__(self) -> None:
        self._encoded: dict[str, bytes] = {}

    def spec(self, data: bytes) -> Spec:
        """The stored spec; if it is long, a placeholder for it, which `insert` replaces."""
        if len(data) <= _LARGE_SPEC:
            return decode_spec(data)
        stand_in = Spec(method=secrets.token_hex(16))
        self._encoded[to_json(stand_in)] = data
        return stand_in

    def insert(self, text: str) -> str:
        """The JSON of the answer, with every spec."""
        for stand_in, data in self._encoded.items():
            text = text.replace(stand_in, zlib.decompress(data).decode(), 1)
        return text
