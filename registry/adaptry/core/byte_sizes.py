"""Amounts of bytes as people write them: `5GB`, `512MiB`."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str) -> int:
    """`5GB`, `512MiB`, `2000000` → bytes. Raises `Invalid`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not match or match[2].upper() not in _UNITS:
        raise Invalid(f"not a size: {text!r} (write 5GB, 512MiB or a number of bytes)")
    return int(float(match[1]) * _UNITS[match[2].upper()])
