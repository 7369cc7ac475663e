"""Pushes an adapter by plain requests of the Hub protocol, without a client, for tests of single
responses.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import RawResponse, Server

TONE = "acme/tone"
CONFIG, WEIGHTS, README = "adapter_config.json", "adapter_model.safetensors", "README.md"
CARD = b"---\nlicense: mit\ntags: [warm]\n---\n# Tone\n"


def files_of(folder: Path, seed: int = 1) -> dict[str, bytes]:
    """A small adapter's files; different seeds give different weights."""
    made = tiny_lora(folder, seed=seed)
    return {path.name: path.read_bytes() for path in made.iterdir()}


def create(server: Server, name: str = TONE, **more: Any) -> RawResponse:
    namespace, _, short = name.partition("/")
    return server.call("POST", "/api/repos/create", {"name": short, "organization": namespace, **more})


def lines(files: Mapping[str, bytes], *more: dict[str, Any], parent: str | None = None) -> bytes:
    """The body of a commit that adds files."""
    header = {"summary": "put", "description": "", **({"parentCommit": parent} if parent else {})}
    said: list[dict[str, Any]] = [{"key": "header", "value": header}]
    for path, data in files.items():
        value = {"path": path, "content": base64.b64encode(data).decode(), "encoding": "base64"}
        said.append({"key": "file", "value": value})
    return b"".join(json.dumps(line).encode() + b"\n" for line in [*said, *more])


def send(
    server: Server, body: bytes, revision: str = "main", name: str = TONE, token: str = "admin"
) -> RawResponse:
    return server.call(
        "POST",
        f"/api/models/{name}/commit/{revision}",
        body,
        token=token,
        headers={"Content-Type": "application/x-ndjson"},
    )


def put(server: Server, files: Mapping[str, bytes], revision: str = "main", name: str = TONE) -> str:
    """Commits files; returns the commit's id."""
    answer = send(server, lines(files), revision, name)
    assert answer.status == 200, answer.body
    return str(answer.json["commitOid"])


def deleted(path: str) -> dict[str, Any]:
    return {"key": "deletedFile", "value": {"path": path}}
