"""Where things are and what is allowed: the environment, read once at an entry point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adaptry.core.errors import Invalid, Unavailable


@dataclass(frozen=True, slots=True)
class AdaptrySettings:
    """`registry` is a URL or a folder; None means the embedded registry in the user's data folder.

    `catalog` is the PostgreSQL database of a new registry in a folder, whose files stay in it; else it is
    SQLite there. `blobs` is the bucket in which a new one keeps its files (`s3://bucket/prefix`); None is the
    folder. `cache` is the folder of the adapters that engines on this machine are given, `cache_size` what it
    may take (`50GB`).
    """

    registry: str | None = None
    token: str | None = None
    ca_bundle: str | None = None
    proxy: str | None = None
    catalog: str | None = None
    blobs: str | None = None
    cache: str | None = None
    cache_size: str | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> AdaptrySettings:
        """Reads ADAPTRY_URL, ADAPTRY_CATALOG, ADAPTRY_BLOBS, ADAPTRY_TOKEN, ADAPTRY_CA_BUNDLE (or
        SSL_CERT_FILE, REQUESTS_CA_BUNDLE), ADAPTRY_PROXY, ADAPTRY_CACHE, ADAPTRY_CACHE_SIZE.

        What is a secret may be in a file (`said`). Raises as `said`.
        """
        return cls(
            registry=environ.get("ADAPTRY_URL") or None,
            token=secret_or_env("ADAPTRY_TOKEN", environ),
            ca_bundle=environ.get("ADAPTRY_CA_BUNDLE")
            or environ.get("REQUESTS_CA_BUNDLE")
            or environ.get("SSL_CERT_FILE")
            or None,
            proxy=environ.get("ADAPTRY_PROXY") or None,
            catalog=secret_or_env("ADAPTRY_CATALOG", environ),
            blobs=environ.get("ADAPTRY_BLOBS") or None,
            cache=environ.get("ADAPTRY_CACHE") or None,
            cache_size=environ.get("ADAPTRY_CACHE_SIZE") or None,
        )


def secret_or_env(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """What the variable `name` says, or the file in `name`_FILE: secrets in the environment are seen by many.

    Raises `Invalid` where both are set, or the file is empty, `Unavailable` where it cannot be read.
    """
    value, file = environ.get(name) or None, environ.get(f"{name}_FILE")
    if not file:
        return value
    if value:
        raise Invalid(f"{name} and {name}_FILE are both set; unset one of them")
    return read_secret(Path(file), f"{name}_FILE")


def read_secret(path: Path, named: str) -> str:
    """The secret in a file, less its newline; `named` told of the file. Raises `Invalid`, `Unavailable`."""
    try:
        secret = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Unavailable(f"cannot read {path}, which {named} names: {why}") from error
    if not secret:
        raise Invalid(f"{path}, which {named} names, is empty")
    return secret


def is_server(where: str) -> bool:
    """Whether a registry's place is a server's address; else it is a folder, or a slip of the pen."""
    return where.startswith(("http://", "https://"))


def is_postgres(catalog: str) -> bool:
    """Whether a catalog's place is a PostgreSQL database."""
    return catalog.startswith(("postgresql://", "postgres://", "postgresql+psycopg://"))


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """ADAPTRY_HOME, or the user's data folder for adaptry."""
    if environ.get("ADAPTRY_HOME"):
        return Path(environ["ADAPTRY_HOME"]).expanduser()
    from platformdirs import user_data_path

    return user_data_path("adaptry")
