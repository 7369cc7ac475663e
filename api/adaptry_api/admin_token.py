"""The first token: given in a file, or else written once to the server's folder; it is never printed."""

from __future__ import annotations

import os
from pathlib import Path

from adaptry.core.errors import Unavailable
from adaptry.core.settings import read_secret
from adaptry.storage import tokens
from adaptry.storage.catalog.database import Catalog

FILE = "admin-token"


def ensure_admin_token(data: Path, catalog: Catalog) -> Path:
    """The file with the first admin token, created with mode 0600 if missing. Raises `Unavailable`.

    If the file was deleted, it is written again with a new token; the old token works until it is revoked.
    """
    path = data / FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path
    except OSError as error:
        raise Unavailable(f"cannot write {path}: {error.strerror}") from error
    try:
        secret = tokens.create_token(catalog, "admin", "admin", ("*",), None)
        with os.fdopen(descriptor, "w", closefd=False) as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
    return path


def admit_admin_token(path: Path, catalog: Catalog) -> None:
    """Registers the token in the file `path` as an administrator's. A token that is already registered stays
    as it is, even if it is revoked.

    Raises `Invalid` if the file does not hold a token, and `Unavailable`.
    """
    tokens.admit_token(
        catalog, read_secret(path, "the administrator token's setting"), "admin", "admin", ("*",)
    )
