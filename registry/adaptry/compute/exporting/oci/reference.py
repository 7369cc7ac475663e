"""The location of an artifact in an OCI registry: `oci://HOST[:PORT]/REPOSITORY[:TAG]`.

The protocol is https, except for a registry on this machine, as in Docker; `oci+http://` means plain http.
"""

from __future__ import annotations

import re
from typing import Self

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

GRAMMAR = "oci://HOST[:PORT]/REPOSITORY[:TAG]"
_REFERENCE = re.compile(
    r"oci(?P<plain>\+http)?://(?P<host>[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(?::(?P<port>\d{1,5}))?"
    r"/(?P<repository>[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)"
    r"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127}))?"
)
_LOCAL_HOSTS = frozenset(["localhost", "127.0.0.1", "[::1]"])


@dataclass(frozen=True, slots=True)
class OciReference:
    """A repository and a tag."""

    host: str
    repository: str
    tag: str = "latest"
    is_plain: bool = False

    @classmethod
    def parse(cls, text: str) -> Self:
        """The reference in `text`. Raises `Invalid` with the grammar."""
        found = _REFERENCE.fullmatch(text)
        if found is None:
            raise Invalid(f"not a location in an OCI registry: {text[:120]!r} (write {GRAMMAR})")
        host = found["host"] + (f":{found['port']}" if found["port"] else "")
        is_plain = bool(found["plain"]) or found["host"] in _LOCAL_HOSTS
        return cls(host, found["repository"], found["tag"] or "latest", is_plain)

    @property
    def url(self) -> str:
        """The repository's URL in the distribution protocol."""
        return f"{'http' if self.is_plain else 'https'}://{self.host}/v2/{self.repository}"

    def __str__(self) -> str:
        return f"oci://{self.host}/{self.repository}:{self.tag}"
