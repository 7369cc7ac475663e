"""Which database a registry's folder has: a file in it, or a PostgreSQL database whose address is kept in it.

The address is kept, without its password, so that every command on the folder finds the same rows, and none
begins new ones beside them. A password comes with the address that is given, else from where PostgreSQL's own
clients take it (PGPASSWORD, `~/.pgpass`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from adaptry.core.errors import Conflict, Invalid
from adaptry.core.settings import is_postgres
from adaptry.storage.catalog.database import Catalog

FILE = "catalog.sqlite"
ADDRESS = "catalog.url"


def open_catalog(
    folder: Path, url: str | None = None, fit: Callable[[Catalog | None], None] = lambda _: None
) -> Catalog:
    """The catalog of the registry in `folder`; `url` (`postgresql://…`) says where that of a new one is.
    `fit` is asked before the folder has a catalog that it had not (None: a file that is not there yet), and
    may raise.

    Raises `Conflict` where the registry has its catalog elsewhere, `Invalid` for what is no address,
    `Unavailable`, `ProtocolMismatch`.
    """
    known = address_in(folder)
    if url is None and known is None:
        if not (folder / FILE).is_file():
            fit(None)
        return _check_fit(Catalog.open(folder / FILE), fit)
    address = url or known or ""
    place = normalise_url(address)
    if known is not None and normalise_url(known) != place:
        raise Conflict(
            f"the registry in {folder} has its catalog in {known}, not in {place}; if that one was moved"
            f" there, write the new address to {folder / ADDRESS}"
        )
    if known is None and (folder / FILE).is_file():
        # Its files are known to that catalog: with another one they would be nobody's.
        raise Conflict(
            f"the registry in {folder} has a catalog of its own; move it: "
            f"adaptry migrate --from sqlite:{folder} --to {place}"
        )
    catalog = _check_fit(Catalog(address), fit)
    if known is None:
        keep_address(folder, address)
    return catalog


def _check_fit(catalog: Catalog, fit: Callable[[Catalog | None], None]) -> Catalog:
    try:
        fit(catalog)
    except BaseException:
        catalog.close()
        raise
    return catalog


def address_in(folder: Path) -> str | None:
    """Where the registry in `folder` has its catalog, if not in a file."""
    try:
        return (folder / ADDRESS).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def keep_address(folder: Path, url: str) -> None:
    """From now on the registry in `folder` has its catalog there."""
    part = folder / f"{ADDRESS}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(f"{make_url(url).set(password=None).render_as_string()}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / ADDRESS)


def normalise_url(url: str) -> str:
    """A database's address without who asks: the same for all who mean the same. Raises `Invalid`."""
    try:
        if not is_postgres(url):
            raise Invalid("not a catalog's database: expected postgresql://user@host:port/database")
        parts = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Invalid("not a catalog's database: expected postgresql://user@host:port/database") from error
    host = parts.host or parts.query.get("host") or "localhost"
    return f"postgresql://{host}:{parts.port or 5432}/{parts.database or ''}"
