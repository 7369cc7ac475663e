"""Creates the secrets of compose.yaml, each in its own file: `python3 make_secrets.py FOLDER`. Existing ones
stay.

It needs only Python. Do not share the folder; compose mounts each file where it is needed. To change a
secret, see docs/deploying.md.
"""

from __future__ import annotations

import argparse
import json
import secrets
import string
import zlib
from pathlib import Path

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path, nargs="?", default=Path("secrets"))
    make(arguments.parse_args().folder)


def make(folder: Path) -> None:
    """Writes missing files. Files that contain the same secret are derived from the first one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    password = _kept(folder / "postgres-password", secrets.token_hex(24))
    _kept(folder / "catalog-url", f"postgresql://adaptry:{password}@postgres:5432/adaptry")
    credentials = _kept(
        folder / "s3-credentials",
        f"[default]\naws_access_key_id = {secrets.token_hex(10)}\naws_secret_access_key ="
        f" {secrets.token_hex(24)}",
    )
    key, secret = (line.split(" = ")[1] for line in credentials.splitlines()[1:])
    identity = {
        "name": "adaptry",
        "credentials": [{"accessKey": key, "secretKey": secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    _kept(folder / "s3-identities.json", json.dumps({"identities": [identity]}, indent=1))
    _kept(folder / "admin-token", _token())
    _kept(folder / "signing-secret", secrets.token_hex(32))


def _kept(path: Path, made: str) -> str:
    """The file's text; creates the file if it is missing."""
    if not path.exists():
        # Containers run as different users, and compose mounts a file with its mode: the folder's mode keeps
        # other users out.
        path.write_text(f"{made}\n")
        path.chmod(0o644)
        print(path)
    return path.read_text().strip()


def _token() -> str:
    """A token as servers create them: 32 characters, and a checksum of 6 that detects typing errors."""
    body = "".join(secrets.choice(_DIGITS) for _ in range(32))
    number, check = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        check = _DIGITS[digit] + check
    return f"adr_pat_{body}{check}"


if __name__ == "__main__":
    main()
