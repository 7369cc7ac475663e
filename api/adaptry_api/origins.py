"""Origins of web pages (`scheme://host[:port]`), as browsers send in `Origin` (RFC 6454 §6.2)."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid

_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_FORM = (
    "an origin is a scheme, a host and an optional port, with nothing after them, such as"
    " https://app.example.com"
)


def check_origin(text: str) -> str:
    """`text`, if a browser could send it as an origin. Raises `Invalid`, with the right form.

    Neither `*` nor `null` is accepted: any page could then use a token that it obtained.
    """
    scheme, separator, rest = text.partition("://")
    host, colon, port = _split(rest)
    if not separator or scheme not in _DEFAULT_PORTS or not _HOST.fullmatch(host):
        raise Invalid(f"not an origin: {text[:120]!a}; {_FORM}")
    if not colon:
        return text
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536 and str(int(port)) == port):
        raise Invalid(f"not an origin: {text[:120]!a}; {_FORM}")
    if port == _DEFAULT_PORTS[scheme]:
        raise Invalid(f"browsers leave the default port out of an origin: write {scheme}://{host}")
    return text


def _split(rest: str) -> tuple[str, str, str]:
    """Host, colon, port; the colons of an IPv6 address are inside brackets."""
    end = rest.find("]") + 1
    name, colon, port = rest[end:].partition(":")
    return rest[:end] + name, colon, port
