"""Measures how long a Hub client's commit of many small files takes.

    python bench/hub_commit.py [--files 500] [--rounds 3] [--folder DIR]

Each round commits as many new files of about 1 KB to a branch, in one request, as `upload_folder` does. The
limit comes after it: the same files written and flushed, one by one and all at once.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import urllib3
from figures import note
from served import Served, served

from adaptry.core.files.durable import ParallelFlush


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder, served(Path(folder) / "data") as server:
        send(server, "/api/v1/adapters", {"name": "acme/runs"})
        send(server, "/api/v1/adapters/acme/runs/branches", {"name": "trial", "at": "main"})
        taken, limits = [], []
        for number in range(asked.rounds):
            files = {f"run-{number}-{n}/README.md": random.randbytes(500).hex() for n in range(asked.files)}
            ours = timed(lambda made=files: commit(server, made))
            apart = timed(lambda made=files: write(Path(folder) / "apart", made, one_by_one=True))
            together = timed(lambda made=files: write(Path(folder) / "together", made, one_by_one=False))
            taken.append(ours)
            limits.append(together)
            print(
                f"{asked.files} files: {ours:.2f} s; written and flushed one by one {apart:.2f} s, together"
                f" {together:.2f} s"
            )
        note("hub-commit", taken, limits)


def commit(server: Served, files: Mapping[str, str]) -> None:
    lines: list[object] = [{"key": "header", "value": {"summary": "Many files"}}]
    for path, text in files.items():
        content = base64.b64encode(text.encode()).decode()
        lines.append({"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}})
    body = "\n".join(map(json.dumps, lines)).encode()
    send(server, "/api/models/acme/runs/commit/trial", body, "application/x-ndjson")


def send(server: Served, path: str, body: object, kind: str = "application/json") -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": kind}
    answer = urllib3.request("POST", server.url + path, body=data, headers=headers, timeout=300)
    assert answer.status < 300, answer.data


def write(folder: Path, files: Mapping[str, str], *, one_by_one: bool) -> None:
    folder.mkdir(exist_ok=True)
    descriptors = []
    for path, text in files.items():
        descriptor = os.open(folder / path.replace("/", "-"), os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, text.encode())
        descriptors.append(descriptor)
        if one_by_one:
            os.fsync(descriptor)
    if not one_by_one:
        ParallelFlush().flush(descriptors)
    for descriptor in descriptors:
        os.close(descriptor)


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
