"""Settings from environment variables, which an entry point reads once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from adaptry.core.errors import Invalid, Unavailable
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class AdaptrySettings:
    """`registry` is a URL or a folder; None means the embedded registry in the user's data folder.

    `catalog` is the PostgreSQL database for a new registry whose files are in a folder; None means SQLite in
    that folder. `blobs` is the bucket for a new registry's files (`s3://bucket/prefix`); None means the
    folder. `cache` is the folder of adapters for the engines on this machine, and `cache_size` its limit
    (`50GB`).
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

        Secrets may be in files (`secret_or_env`, which also lists the errors).
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
    """The value of the variable `name`, or the content of the file that `name`_FILE names, since many
    programs can see the environment.

    Raises `Invalid` if both are set or the file is empty, and `Unavailable` if it cannot be read.
    """
    value, file = environ.get(name) or None, environ.get(f"{name}_FILE")
    if not file:
        return value
    if value:
        raise Invalid(f"{name} and {name}_FILE are both set; unset one of them")
    return read_secret(Path(file), f"{name}_FILE")


def read_secret(path: Path, named: str) -> str:
    """The secret in a file, without its newline. Errors (`Invalid`, `Unavailable`) mention `named`, the
    variable or option with the file's path.
    """
    try:
        secret = path.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Unavailable(f"cannot read {path}, which {named} names: {why}") from error
    if not secret:
        raise Invalid(f"{path}, which {named} names, is empty")
    return secret


def is_server(where: str) -> bool:
    """Whether a registry's location is a server's URL. Otherwise it is a folder, or a mistyped URL."""
    return where.startswith(("http://", "https://"))


def is_postgres(catalog: str) -> bool:
    """Whether a catalog's location is a PostgreSQL database."""
    return catalog.startswith(("postgresql://", "postgres://", "postgresql+psycopg://"))


def data_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """ADAPTRY_HOME, or the user's data folder for adaptry."""
    if environ.get("ADAPTRY_HOME"):
        return Path(environ["ADAPTRY_HOME"]).expanduser()
    from platformdirs import user_data_path

    return user_data_path("adaptry")
