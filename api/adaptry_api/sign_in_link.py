"""The sign-in link of `adaptry serve`: a code for one browser on this machine, valid once, for a minute.

The code's hash is in a file of the registry's folder that only its user can read. A request removes the file
before it may use the code, so of two requests, in any processes, only one succeeds. The code itself is in the
link's fragment, which browsers send to no server.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import time
from pathlib import Path

from adaptry.core.errors import Unauthenticated

SIGN_IN_LINK = "/-/sign-in/link"
"""The address of the page that sends the code."""
LINK_SECONDS = 60
_FILE = "sign-in-code"
_REFUSED = (
    "this sign-in link was used already or has expired: it is valid once, for a minute. Sign in with a token,"
    " or restart `adaptry serve` for a new link"
)


def create_sign_in_code(data: Path, token_sha256: str) -> str:
    """A new code for a session of the token with this hash; an earlier code becomes invalid."""
    code = secrets.token_urlsafe(32)
    document = {"code": _hash(code), "until": time.time() + LINK_SECONDS, "by": token_sha256}
    draft = data / f".{_FILE}.{secrets.token_hex(4)}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(document, file)
    draft.replace(data / _FILE)
    return code


def redeem_sign_in_code(data: Path, code: str) -> str:
    """The hash of the token that `code` stands for, once. Raises `Unauthenticated`."""
    path = data / _FILE
    try:
        document = json.loads(path.read_bytes())
        is_right = hmac.compare_digest(document["code"], _hash(code)) and time.time() < document["until"]
        if not is_right:
            raise Unauthenticated(_REFUSED)
        path.unlink()
    except (OSError, ValueError, KeyError):
        raise Unauthenticated(_REFUSED) from None
    return str(document["by"])


def _hash(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()
