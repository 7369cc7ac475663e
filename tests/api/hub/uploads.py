"""Helpers for tests of uploads: the real clients, an adapter as the target, and a check of the stored
files.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from adaptry_api.testing import RawResponse, Server

TONE = "acme/tone"

XET_CLIENT = """
import os, sys, hf_xet
address = f"{os.environ['HF_ENDPOINT']}/api/models/{sys.argv[1]}/xet-write-token/{sys.argv[2]}"
headers = {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"}
session = hf_xet.XetSession()
with session.new_upload_commit(token_refresh_url=address, token_refresh_headers=headers) as commit:
    for given in sys.argv[3:]:
        path, _, sha256 = given.partition("=")
        commit.start_upload_file(path, sha256=sha256 or hf_xet.COMPUTE_SHA256)
"""
"""Uploads the files `PATH` or `PATH=SHA256`: adapter, revision, files."""

LFS_CLIENT = """
import sys
from huggingface_hub import CommitOperationAdd, constants
from huggingface_hub.lfs import lfs_upload, post_lfs_batch_info
what = CommitOperationAdd("adapter_model.safetensors", sys.argv[2])
asked = dict(upload_infos=[what.upload_info], token=None, repo_type="model", \
repo_id=sys.argv[1], revision="main")
(found,), errors, _ = post_lfs_batch_info(**asked)
print("parts" if "chunk_size" in found.get("actions", {}).get("upload", {}).get("header", {}) else "whole")
lfs_upload(what, found)
(again,), errors, _ = post_lfs_batch_info(**asked)
assert "actions" not in again and not errors, again
"""
"""Uploads one file, says how, and sees that it is not asked for again: adapter, file."""


def create(server: Server, name: str = TONE) -> None:
    assert server.call("POST", "/api/v1/adapters", {"name": name}).status == 201


def has(server: Server, content: bytes, name: str = TONE) -> bool:
    """Whether the adapter has a file with that content, verified by the registry."""
    digest = hashlib.sha256(content).hexdigest()
    answer = server.call("GET", f"/api/v1/adapters/{name}/blobs/sha256:{digest}")
    return bool(answer.json["is_here"])


def kept(server: Server) -> list[str]:
    """All stored and all unfinished files, by name."""
    blobs = server.data / "blobs"
    return sorted(path.name for path in blobs.rglob("*") if path.is_file())


def waiting(server: Server) -> list[str]:
    """The pieces that wait in spools."""
    spools = server.data / "spools"
    aside = {"finished", ".alone"}
    return sorted(path.name for path in spools.glob("[!.]*/*/*") if path.name not in aside)


def path_of(url: str) -> str:
    """An address of the server, in the form that `Server.call` accepts."""
    parts = urlsplit(url)
    return parts.path + (f"?{parts.query}" if parts.query else "")


@dataclass(frozen=True, slots=True)
class XetUpload:
    """The token and the address that a client has for an upload."""

    server: Server
    token: str
    address: str

    @classmethod
    def start(cls, server: Server, name: str = TONE, token: str = "admin") -> XetUpload:
        answer = server.call("GET", f"/api/models/{name}/xet-write-token/main", token=token)
        assert answer.status == 200, answer.body
        return cls(server, answer.json["accessToken"], path_of(answer.json["casUrl"]))

    def post(self, path: str, body: bytes, **other: Any) -> RawResponse:
        return self.server.call("POST", f"{self.address}{path}", body, **{"token": self.token, **other})

    def xorb(self, body: bytes, hash: str) -> RawResponse:
        return self.post(f"/v1/xorbs/default/{hash}", body)

    def shard(self, body: bytes) -> RawResponse:
        return self.post("/v1/shards", body)


def run_client(server: Server, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs an unmodified client in a separate process, configured as its users configure it."""
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    environment |= {
        "HF_ENDPOINT": server.url,
        "HF_TOKEN": server.admin,
        "HF_HOME": str(server.data.parent / "hf"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
