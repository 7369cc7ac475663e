"""The limit for resolving an alias: FastAPI and sqlite3 with one statement, no tokens and no checks.

python bench/peers/fastapi_sqlite.py CATALOG     prints its address
"""

from __future__ import annotations

import socket
import sqlite3
import sys

import uvicorn
from fastapi import FastAPI

_RESOLVE = (
    "SELECT v.number, v.digest, v.state FROM adapters a JOIN aliases l ON l.adapter_id = a.id"
    " JOIN versions v ON v.id = l.version_id WHERE a.name = ? AND l.alias = ?"
)


def main() -> None:
    connection = sqlite3.connect(sys.argv[1], check_same_thread=False)
    app = FastAPI()

    @app.get("/api/v1/adapters/{namespace}/{name}/versions/{alias}")
    async def resolve(namespace: str, name: str, alias: str) -> dict[str, object]:
        number, digest, state = connection.execute(_RESOLVE, (f"{namespace}/{name}", alias)).fetchone()
        return {"number": number, "digest": digest, "state": state}

    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
