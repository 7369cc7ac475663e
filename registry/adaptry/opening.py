"""`connect`: a registry by where it is. Nothing to start for the embedded one: SQLite and files in a folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.errors import Unavailable
from adaptry.identity import LOCAL, Identity
from adaptry.registry import Registry
from adaptry.settings import Settings, data_folder

if TYPE_CHECKING:
    from adaptry.local import LocalRegistry


def connect(where: str | None = None, settings: Settings | None = None) -> Registry:
    """The registry at `where`: a server's URL, or a folder; None is what `settings` say, else the user's own.

    `settings` are read from the environment unless given. Raises `Unavailable`, `Incompatible`.
    """
    settings = settings or Settings.from_env()
    where = where or settings.registry
    if where is None:
        return open_local(data_folder())
    if where.startswith(("http://", "https://")):
        from adaptry.client import HttpRegistry

        return HttpRegistry(where, settings.token, settings.ca_bundle, settings.proxy)
    return open_local(Path(where))


def open_local(
    folder: Path | str, identity: Identity = LOCAL, *, require_known_base: bool = False
) -> LocalRegistry:
    """The embedded registry in `folder`, made if it is missing; what died half-way there is cleaned up.

    Raises `Unavailable` (no such place, not durable), `Incompatible` (made by a newer adaptry).
    """
    from adaptry.blobs.local import LocalBlobs
    from adaptry.catalog.database import Catalog
    from adaptry.local import LocalRegistry
    from adaptry.local.uploads import purge

    folder = Path(folder).expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        blobs = LocalBlobs(folder / "blobs")
    except OSError as error:
        raise Unavailable(
            f"cannot keep a registry in {folder}: {error.strerror}; choose another folder"
        ) from error
    catalog = Catalog.at(folder / "catalog.sqlite")
    purge(catalog, blobs, datetime.now(UTC))
    return LocalRegistry(catalog, blobs, identity, require_known_base=require_known_base)
