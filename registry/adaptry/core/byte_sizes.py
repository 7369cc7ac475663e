"""Sizes in bytes as people write them: `5GB`, `512MiB`."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid

_DECIMAL = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_UNITS = {**_DECIMAL, **_BINARY}


def parse_bytes(text: str) -> int:
    """`5GB`, `512MiB` or `2000000` as a number of bytes. Raises `Invalid` if the size is malformed."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS:
        raise Invalid(f"not a size: {text!r} (write 5GB, 512MiB or a number of bytes)")
    return int(float(match[1]) * _UNITS[match[2].upper()])
