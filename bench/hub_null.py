"""A server that accepts uploads of Hub clients and discards the bytes, to measure only the client's work.

    python bench/hub_null.py

It prints its address, and answers the requests of `hf upload`, by Git LFS and by Xet, like a server that has
none of the files. It neither stores nor checks anything.
"""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0" * 40
PIECE = 1 << 20


class Handler(BaseHTTPRequestHandler):
    """Chooses its answers by the address alone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "/xet-write-token/" in self.path:
            found = {"accessToken": "none", "exp": 1 << 40, "casUrl": f"{self._origin}/xet"}
            headers = {"X-Xet-Access-Token": "none", "X-Xet-Token-Expiration": str(1 << 40)}
            self._answer(200, found, headers | {"X-Xet-Cas-Url": f"{self._origin}/xet"})
        else:
            self._answer(404, {"error": "not here"}, {})

    def do_PUT(self) -> None:
        self._skip_body()
        self._answer(200, {}, {})

    def do_POST(self) -> None:
        path = self.path
        if "/v1/xorbs/" in path or "/v1/shards" in path:
            self._skip_body()
            self._answer(200, {"was_inserted": True, "result": 1}, {})
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if path == "/api/repos/create":
            name = f"{json.loads(body)['organization']}/{json.loads(body)['name']}"
            self._answer(200, {"url": f"{self._origin}/{name}", "name": name, "id": name}, {})
        elif "/preupload/" in path:
            files = [_kind(file["path"]) for file in json.loads(body)["files"]]
            self._answer(200, {"files": files, "commitOid": COMMIT}, {})
        elif path.endswith("/objects/batch"):
            objects = [{**one, "actions": self._action} for one in json.loads(body)["objects"]]
            self._answer(200, {"transfer": "basic", "objects": objects}, {})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            address = f"{self._origin}/{name}/commit/{COMMIT}"
            self._answer(200, {"success": True, "commitOid": COMMIT, "commitUrl": address}, {})
        else:
            self._answer(404, {"error": "not here"}, {})

    def log_message(self, *_: object) -> None:
        pass

    @property
    def _origin(self) -> str:
        return f"http://{self.headers['Host']}"

    @property
    def _action(self) -> dict[str, Any]:
        return {"upload": {"href": f"{self._origin}/put", "header": {}}}

    def _skip_body(self) -> None:
        left, piece = int(self.headers["Content-Length"]), memoryview(bytearray(PIECE))
        while left:
            left -= self.rfile.readinto(piece[: min(left, PIECE)])

    def _answer(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _kind(path: str) -> dict[str, Any]:
    is_large = path.endswith(".safetensors")
    return {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": False}


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
