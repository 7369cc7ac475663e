"""Parses URLs that the server sends requests to; checks only their form."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

_VISIBLE = re.compile(r"[!-~]{1,2048}")


@dataclass(frozen=True, slots=True)
class OutgoingUrl:
    """A URL that a request can be sent to; its host is not resolved yet."""

    text: str
    is_https: bool
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, text: str) -> OutgoingUrl:
        """Parses a URL. Raises `Invalid` unless it is an http or https URL without user, password and
        fragment.
        """
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Invalid(f"not a URL: {text[:200]!a} ({error})") from None
        if not _VISIBLE.fullmatch(text) or parts.scheme not in ("http", "https") or not host:
            raise Invalid(
                f"not a URL: {text[:200]!a} (expected https://host/path, of at most 2048 characters)"
            )
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise Invalid(f"the URL must not contain a user, a password or a fragment: {text[:200]!a}")
        is_https = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(text, is_https, host, port or (443 if is_https else 80), target)
