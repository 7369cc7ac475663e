"""An issuer of ID tokens on this machine: discovery and keys over HTTP, and tokens with real signatures."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

AUDIENCE = "https://registry.example"
EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
}
RELEASE = ".github/workflows/release.yml"


@cache
def rsa_key(name: str) -> RSAKey:
    """A key that the tests share, since generating one takes a while."""
    return RSAKey.generate_key(2048, {"kid": name, "use": "sig", "alg": "RS256"}, private=True)


class HeldRequests:
    """POST requests that get no response until `release`. `most` is the largest number that waited at
    once.
    """

    def __init__(self) -> None:
        self._changed, self._is_released = threading.Condition(), False
        self._waiting = self.most = 0

    def wait(self) -> None:
        with self._changed:
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._is_released)
            self._waiting -= 1

    def wait_until(self, count: int) -> bool:
        """Waits until that many requests are held; returns whether this happened."""
        with self._changed:
            return self._changed.wait_for(lambda: self.most >= count, timeout=60)

    def release(self) -> None:
        with self._changed:
            self._is_released = True
            self._changed.notify_all()


class LocalIssuer:
    """`token` signs with its key; `published` are the keys that clients see. `answers` are the responses to
    POST requests, by path: a document, a status and a document, or a function of the body that returns one of
    these.
    """

    def __init__(self) -> None:
        self.name = f"local-{secrets.token_hex(8)}"
        self.url = ""
        self.key: RSAKey | ECKey = rsa_key("first")
        self.published: list[RSAKey | ECKey] = [self.key]
        self.is_away = False
        self.named: str | None = None
        self.requests: list[str] = []
        self.answers: dict[str, Any] = {}
        self.bodies: list[bytes] = []
        self.authorizations: list[str | None] = []
        self.held: HeldRequests | None = None
        self.user_info: dict[str, Any] | None = None

    def rotate(self, key: RSAKey | ECKey, *, keep_old: bool = False) -> None:
        self.published = [*self.published, key] if keep_old else [key]
        self.key = key

    def token(self, *, key: Any = None, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token for a job of the workflow RELEASE on main; claims that are None are left out."""
        now = int(time.time())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "repo:acme/train:ref:refs/heads/main",
            "iat": now,
            "nbf": now,
            "exp": now + 300,
            "jti": secrets.token_hex(16),
            "event_name": "push",
            "repository": "acme/train",
            "repository_id": "1001",
            "repository_owner_id": "77",
            "ref": "refs/heads/main",
            "workflow_ref": f"acme/train/{RELEASE}@refs/heads/main",
            "run_id": "5",
            "sha": "f" * 40,
        }
        signing = key or self.key
        usual_head = {"alg": "ES256" if isinstance(signing, ECKey) else "RS256", "kid": signing.kid}
        changed = usual_head | (header or {})
        head = {name: value for name, value in changed.items() if value is not None}
        stated = {name: value for name, value in (usual | claims).items() if value is not None}
        return jwt.encode(head, stated, signing, algorithms=["RS256", "ES256", "HS256", "RS512"])

    def document(self, path: str) -> dict[str, Any] | None:
        if path == "/userinfo":
            return self.user_info
        if path == "/.well-known/openid-configuration":
            optional = {"userinfo_endpoint": f"{self.url}/userinfo"} if self.user_info is not None else {}
            return {
                **optional,
                "issuer": self.named or self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
            }
        if path == "/keys":
            return {"keys": [key.as_dict(private=False) for key in self.published]}
        return None


@contextmanager
def running_issuer() -> Iterator[LocalIssuer]:
    """Runs an issuer. Its name is part of its address, since a later issuer may get the same port."""
    issuer = LocalIssuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.removeprefix(f"/{issuer.name}")
            issuer.requests.append(path)
            found = issuer.document(path)
            self.answer(503 if issuer.is_away else 200 if found else 404, found)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            issuer.bodies.append(body)
            issuer.authorizations.append(self.headers["Authorization"])
            if issuer.held is not None:
                issuer.held.wait()
            found = issuer.answers[self.path.removeprefix(f"/{issuer.name}")]
            found = found(body) if callable(found) else found
            status, document = found if isinstance(found, tuple) else (200, found)
            self.answer(status, document)

        def answer(self, status: int, document: object) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer.url = f"http://127.0.0.1:{server.server_port}/{issuer.name}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield issuer
        server.shutdown()
        thread.join()
