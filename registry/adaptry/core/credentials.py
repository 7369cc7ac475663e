"""The tokens that `adaptry login` saves, one per server, in a file that only its user can read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from adaptry.core import strictjson
from adaptry.core.errors import Invalid

INVITATION = "adr_inv_"
"""How the code of an invitation begins, which is exchanged for a token before anything is saved."""
_LIMITS = strictjson.JsonLimits(size=1 << 20, depth=3)


def credentials_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Stored in ADAPTRY_HOME if that is set, else in the user's configuration folder."""
    if environ.get("ADAPTRY_HOME"):
        return Path(environ["ADAPTRY_HOME"]).expanduser() / "credentials.json"
    from platformdirs import user_config_path

    return user_config_path("adaptry") / "credentials.json"


def token_for(server: str) -> str | None:
    return _read().get(server.rstrip("/"))


def save_token(server: str, token: str) -> Path:
    """Saves the token for `server`; returns the file's path."""
    return _write({**_read(), server.rstrip("/"): token})


def remove_token(server: str) -> bool:
    """Deletes the token for `server`; returns whether there was one."""
    kept = _read()
    found = kept.pop(server.rstrip("/"), None) is not None
    if found:
        _write(kept)
    return found


def _read() -> dict[str, str]:
    path = credentials_path()
    if not path.exists():
        return {}
    found = strictjson.loads(path.read_bytes(), _LIMITS, str(path))
    if not isinstance(found, dict) or not all(isinstance(token, str) for token in found.values()):
        raise Invalid(f"{path} does not map servers to tokens; remove it and log in again")
    return found


def _write(tokens: Mapping[str, str]) -> Path:
    path = credentials_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    # Created for its user only: no moment at which someone else could read it.
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(dict(tokens), file, indent=2, sort_keys=True)
    new.replace(path)
    return path
