"""`s3://bucket/prefix?option=value`: where blobs are kept, and how that server wants to be spoken to.

Credentials are never part of it: they come from where boto3 looks for them (environment, files, the machine's
role).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from adaptry.core.errors import Invalid

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"((?!\.{1,2}(/|$))[A-Za-z0-9!_.*'()-]+(/(?!$)|$))+")
_SERVER = re.compile(r"https?://[^/@?#\s]+/?")
_ADDRESSING = ("auto", "path", "virtual")
_SSE = ("AES256", "aws:kms", "aws:kms:dsse")
_FORM = (
    "expected s3://bucket/prefix, then perhaps"
    " ?endpoint=http://host:8333&public=https://…&region=…&addressing=path&sse=aws:kms&kms-key=…"
)


@dataclass(frozen=True, slots=True)
class S3Location:
    """`endpoint` and `region` are boto3's own unless given; `sse` is asked for with all that is written.

    `public` is the endpoint in addresses that are given out, where clients reach the server under another
    than we do.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    addressing: str = "auto"
    sse: str | None = None
    kms_key: str | None = None
    public: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises `Invalid`, with the form."""
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
            raise Invalid(f"not a place for blobs: {_shown(url)!r} ({_FORM})")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise Invalid(
                f"not a prefix of keys: {prefix[:200]!r} (letters, digits and !_.*'()- between slashes)"
            )
        unknown = set(options) - {"endpoint", "public", "region", "addressing", "sse", "kms-key"}
        if unknown:
            raise Invalid(f"{_shown(url)!r} has an unknown option {min(unknown)!r} ({_FORM})")
        for name in ("endpoint", "public"):
            if name in options and not _SERVER.fullmatch(options[name]):
                raise Invalid(f"{name}={_shown(options[name])!r} is no server's address (http://host:8333)")
        addressing, sse = options.get("addressing", "auto"), options.get("sse")
        if addressing not in _ADDRESSING:
            raise Invalid(f"addressing={addressing[:40]!r} is none of {', '.join(_ADDRESSING)}")
        if sse is not None and sse not in _SSE:
            raise Invalid(f"sse={sse[:40]!r} is none of {', '.join(_SSE)}")
        return cls(
            bucket=parts.netloc,
            prefix=f"{prefix}/" if prefix else "",
            endpoint=options.get("endpoint"),
            region=options.get("region"),
            addressing=addressing,
            sse=sse,
            kms_key=options.get("kms-key"),
            public=options.get("public"),
        )

    @property
    def encryption(self) -> dict[str, str]:
        """What every write asks of the server."""
        asked = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in asked.items() if value}

    @property
    def encryption_headers(self) -> dict[str, str]:
        """The same for who writes without our client: the headers that its signature covers."""
        asked = {
            "x-amz-server-side-encryption": self.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key,
        }
        return {name: value for name, value in asked.items() if value}

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def _shown(url: str) -> str:
    """Without what may be a secret that was put there by mistake."""
    return re.sub(r"//[^/@]*@", "//…@", url)[:200]
