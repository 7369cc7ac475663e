"""The database of a registry's folder: a file in it, or a PostgreSQL database whose address is stored in it.

The address is stored without its password, so that every command on the folder finds the same rows, and none
creates a second catalog. The password is taken from the given address, or from the places of PostgreSQL's own
clients (PGPASSWORD, `~/.pgpass`).
"""

from __future__ import annotations

import os
from pathlib import Path

from adaptry.core.errors import Conflict, Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.settings import is_postgres
from adaptry.storage.catalog.database import Catalog
from adaptry.storage.catalog.lazy_modules import sa

FILE = "catalog.sqlite"
ADDRESS = "catalog.url"


@dataclass(frozen=True)
class CatalogLocation:
    """The location of the registry's rows, existing or new: PostgreSQL, or a file (None)."""

    folder: Path
    address: str | None

    @property
    def is_missing(self) -> bool:
        """Whether the catalog's file does not exist yet. PostgreSQL is checked when it is opened."""
        return self.address is None and not (self.folder / FILE).is_file()

    def open(self) -> Catalog:
        """Opens the catalog; creates a missing file. Raises `Unavailable`, `ProtocolMismatch`,
        `StorageFull`.
        """
        return Catalog.open(self.folder / FILE) if self.address is None else Catalog(self.address)

    def store_address(self) -> None:
        """Stores the catalog's address in the folder."""
        if self.address is not None and address_in(self.folder) is None:
            store_address(self.folder, self.address)


def locate_catalog(folder: Path, url: str | None = None) -> CatalogLocation:
    """The location of the catalog of the registry in `folder`; `url` (`postgresql://…`) is that for a new
    one. Creates nothing.

    Raises `Conflict` if the registry has its catalog elsewhere, `Invalid` for a malformed address.
    """
    known = address_in(folder)
    if url is None and known is None:
        return CatalogLocation(folder, None)
    address = url or known or ""
    place = normalise_url(address)
    if known is not None and normalise_url(known) != place:
        raise Conflict(
            f"the registry in {folder} has its catalog in {known}, not in {place}; if that one was moved"
            f" there, write the new address to {folder / ADDRESS}"
        )
    if known is None and (folder / FILE).is_file():
        # That catalog knows its files: with another one they would have no owner.
        raise Conflict(
            f"the registry in {folder} has its own catalog; move it: "
            f"adaptry migrate --from sqlite:{folder} --to {place}"
        )
    return CatalogLocation(folder, address)


def address_in(folder: Path) -> str | None:
    """The PostgreSQL address of the registry in `folder`; None if its catalog is a file."""
    try:
        return (folder / ADDRESS).read_text(encoding="utf-8").strip() or None
    except (FileNotFoundError, NotADirectoryError):
        return None


def store_address(folder: Path, url: str) -> None:
    """Stores the address of the catalog of the registry in `folder`."""
    part = folder / f"{ADDRESS}.part"
    with part.open("w", encoding="utf-8") as file:
        file.write(f"{sa.make_url(url).set(password=None).render_as_string()}\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / ADDRESS)


def normalise_url(url: str) -> str:
    """A database's address without user and options, so that equal databases have equal addresses. Raises
    `Invalid`.
    """
    try:
        if not is_postgres(url):
            raise Invalid("not a catalog's database: expected postgresql://user@host:port/database")
        parts = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise Invalid("not a catalog's database: expected postgresql://user@host:port/database") from error
    host = parts.host or parts.query.get("host") or "localhost"
    return f"postgresql://{host}:{parts.port or 5432}/{parts.database or ''}"
