"""The data of a flow, in the environment of a client: a server's address, tokens, folders of adapters, names.

A flow is a function of a `World`, registered under the number of its line of the checklist. It uses the
client as documented, and raises an error if the result is not the expected one. Flows do not import the
server's code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

CONFIG, WEIGHTS, CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
VERSION = tuple(int(part) for part in huggingface_hub.__version__.split(".")[:2])
HAS_XET = os.environ.get("HF_HUB_DISABLE_XET") != "1" and VERSION >= (1, 20)
"""Whether this client sends large files as Xet: from 1.20 on it does, without asking the server."""


class ClientCannot(Exception):
    """A feature that this version of the client lacks, with any server; the message states what it does
    instead.
    """


@dataclass(frozen=True)
class World:
    """`folders`: `first` and `second` are two training runs of one adapter, `large` is an adapter of 30 MB,
    `base` is their model.

    `prefix` is the beginning of all names in this flow; `adaptry` starts our own command.
    """

    endpoint: str
    tokens: dict[str, str]
    folders: Path
    scratch: Path
    prefix: str
    adaptry: tuple[str, ...]

    def api(self, who: str = "alice") -> HfApi:
        """The client as `alice` (writes to `alice` and `acme`), `reader` (reads `acme`), or no one."""
        return HfApi(token=self.tokens[who] if who != "nobody" else False)

    def name(self, word: str = "tone") -> str:
        """The id of a repository that only this flow uses."""
        return f"acme/{self.prefix}-{word}"

    def folder(self, name: str = "first", **texts: str) -> Path:
        """A copy of a folder, with these additional text files."""
        copy = self.scratch / f"{name}-{len(list(self.scratch.iterdir()))}"
        shutil.copytree(self.folders / name, copy)
        for path, text in texts.items():
            (copy / path).write_text(text)
        return copy

    def bytes(self, folder: str, file: str = WEIGHTS) -> bytes:
        return (self.folders / folder / file).read_bytes()

    def down(self, name: str, file: str = WEIGHTS, **at: str) -> bytes:
        """Downloads a file of a repository to the cache."""
        return Path(self.api().hf_hub_download(name, file, **at)).read_bytes()

    def command(self, *words: str) -> str:
        """The output of the `adaptry` command, run as `alice` on this server."""
        env = {**os.environ, "ADAPTRY_URL": self.endpoint, "ADAPTRY_TOKEN": self.tokens["alice"]}
        done = subprocess.run([*self.adaptry, *words], capture_output=True, text=True, check=False, env=env)
        assert done.returncode == 0, f"adaptry {words}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def pushed(self, word: str = "tone", folder: str = "first") -> str:
        """The id of a repository with an adapter in it."""
        name = self.name(word)
        self.api().create_repo(name, exist_ok=True)
        self.api().upload_folder(repo_id=name, folder_path=self.folders / folder)
        return name


Flow = Callable[[World], None]
FLOWS: dict[int, Flow] = {}


def line(number: int) -> Callable[[Flow], Flow]:
    """Registers a flow under its line's number."""

    def register(flow: Flow) -> Flow:
        FLOWS[number] = flow
        return flow

    return register


@contextmanager
def raises(kind: type[BaseException], status: int | None = None, text: str = "") -> Iterator[None]:
    """Asserts that the block raises exactly this class; an HTTP error must have this status and contain this
    text.
    """
    try:
        yield
    except kind as error:
        found = getattr(getattr(error, "response", None), "status_code", None)
        assert status is None or found == status, f"status {found}, not {status}: {error}"
        assert text in str(error), f"no {text!r} in: {error}"
    else:
        raise AssertionError(f"no {kind.__name__} was raised")


def refused(status: int, text: str = "") -> Any:
    return raises(HfHubHTTPError, status, text)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    """Git's id for a file of these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def has_commit_id(text: str | None) -> bool:
    return text is not None and len(text) == 40 and set(text) <= set("0123456789abcdef")
