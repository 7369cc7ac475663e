"""`s3://bucket/prefix?option=value`: the place of the blobs, and the options of its server.

Credentials are never part of it: boto3 finds them in the environment, in files or in the machine's role.
"""

from __future__ import annotations

import re
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"((?!\.{1,2}(/|$))[A-Za-z0-9!_.*'()-]+(/(?!$)|$))+")
_SERVER = re.compile(r"https?://[^/@?#\s]+/?")
_ADDRESSING = ("auto", "path", "virtual")
_SSE = ("AES256", "aws:kms", "aws:kms:dsse")
_FORM = (
    "expected s3://bucket/prefix, optionally followed by"
    " ?endpoint=http://host:8333&public=https://…&region=…&addressing=path&sse=aws:kms&kms-key=…"
)


@dataclass(frozen=True, slots=True)
class S3Location:
    """`endpoint` and `region` default to boto3's own; `sse` is requested for every write.

    `public` is the endpoint in presigned URLs, for clients that reach the server at another address.
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
        """Parses a URL such as `s3://bucket/prefix`. Raises `Invalid`, with the expected form."""
        parts = urlsplit(url)
        prefix = parts.path.strip("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.scheme != "s3" or not _BUCKET.fullmatch(parts.netloc):
            raise Invalid(f"not a location for blobs: {_shown(url)!r} ({_FORM})")
        if prefix and not _PREFIX.fullmatch(prefix):
            raise Invalid(
                f"not a prefix of keys: {prefix[:200]!r} (letters, digits and !_.*'()- between slashes)"
            )
        unknown = set(options) - {"endpoint", "public", "region", "addressing", "sse", "kms-key"}
        if unknown:
            raise Invalid(f"{_shown(url)!r} has an unknown option {min(unknown)!r} ({_FORM})")
        for name in ("endpoint", "public"):
            if name in options and not _SERVER.fullmatch(options[name]):
                raise Invalid(
                    f"{name}={_shown(options[name])!r} is not a server's address (such as http://host:8333)"
                )
        addressing, sse = options.get("addressing", "auto"), options.get("sse")
        if addressing not in _ADDRESSING:
            raise Invalid(f"unknown addressing={addressing[:40]!r} (one of: {', '.join(_ADDRESSING)})")
        if sse is not None and sse not in _SSE:
            raise Invalid(f"unknown sse={sse[:40]!r} (one of: {', '.join(_SSE)})")
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
        """The parameters of every write."""
        parameters = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in parameters.items() if value}

    @property
    def encryption_headers(self) -> dict[str, str]:
        """The headers that request encryption, for clients that write by presigned URL; the signature covers
        them.
        """
        parameters = {
            "x-amz-server-side-encryption": self.sse,
            "x-amz-server-side-encryption-aws-kms-key-id": self.kms_key,
        }
        return {name: value for name, value in parameters.items() if value}

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def _shown(url: str) -> str:
    """The URL without parts that may be secrets put there by mistake."""
    return re.sub(r"//[^/@]*@", "//…@", url)[:200]
