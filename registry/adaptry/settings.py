"""Where things are and what is allowed: the environment, read once at an entry point."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """`registry` is a URL or a folder; None means the embedded registry in the user's data folder.

    `catalog` is the PostgreSQL database of a new registry in a folder, whose files stay in it; else it is SQLite there.
    `blobs` is the bucket in which a new one keeps its files (`s3://bucket/prefix`); None is the folder.
    `cache` is the folder of the adapters that engines on this machine are given, `cache_size` what it may take (`50GB`).
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
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Reads ADAPTRY_URL, ADAPTRY_CATALOG, ADAPTRY_BLOBS, ADAPTRY_TOKEN, ADAPTRY_CA_BUNDLE (or SSL_CERT_FILE, REQUESTS_CA_BUNDLE), ADAPTRY_PROXY, ADAPTRY_CACHE, ADAPTRY_CACHE_SIZE."""
        return cls(
            registry=environ.get("ADAPTRY_URL") or None,
            token=environ.get("ADAPTRY_TOKEN") or None,
            ca_bundle=environ.get("ADAPTRY_CA_BUNDLE")
            or environ.get("REQUESTS_CA_BUNDLE")
            or environ.get("SSL_CERT_FILE")
            or None,
            proxy=environ.get("ADAPTRY_PROXY") or None,
            catalog=environ.get("ADAPTRY_CATALOG") or None,
            blobs=environ.get("ADAPTRY_BLOBS") or None,
            cache=environ.get("ADAPTRY_CACHE") or None,
            cache_size=environ.get("ADAPTRY_CACHE_SIZE") or None,
        )


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
