"""Uploads: lines 6 to 9, 50, and with a connection that alters data or breaks (52, 57)."""

from __future__ import annotations

import io
import json
import os
import sys

from world import CARD, HAS_XET, WEIGHTS, ClientCannot, World, has_commit_id, line, sha256


@line(6)
def a_small_file(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    done = world.api().upload_file(path_or_fileobj=b"# Tone\n", path_in_repo=CARD, repo_id=name)
    assert has_commit_id(done.oid), done
    assert done.repo_url.repo_id == name
    assert done.commit_url.endswith(f"/{name}/commit/{done.oid}"), done.commit_url


@line(7)
def a_large_file(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    file = world.folders / "large" / WEIGHTS
    world.api().upload_file(path_or_fileobj=file, path_in_repo=WEIGHTS, repo_id=name)
    assert ("hf_xet" in sys.modules) == HAS_XET
    assert sha256(world.down(name)) == sha256(file.read_bytes())


@line(8)
def a_large_file_that_is_open(world: World) -> None:
    name = world.name()
    world.api().create_repo(name)
    data = world.bytes("large")
    world.api().upload_file(path_or_fileobj=io.BytesIO(data), path_in_repo=WEIGHTS, repo_id=name)
    assert sha256(world.down(name)) == sha256(data)


@line(9)
def a_file_in_parts(world: World) -> None:
    """The server requests files over 256 MiB in parts. Newer clients send only open files in parts."""
    file = world.scratch / WEIGHTS
    size = 257 << 20
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + os.urandom(size))
    name = world.name()
    world.api().create_repo(name)
    with file.open("rb") as opened:
        sent = opened if HAS_XET else file
        world.api().upload_file(path_or_fileobj=sent, path_in_repo=WEIGHTS, repo_id=name)
    assert sha256(world.down(name)) == sha256(file.read_bytes())


@line(50)
def bytes_of_every_kind(world: World) -> None:
    """Zeros, noise, and repetitions of three bytes: Xet packs each kind of chunk differently."""
    name = world.name()
    world.api().create_repo(name)
    world.api().create_branch(name, branch="drafts")
    for kind in ("zeros", "noise"):
        file = world.folders / kind / WEIGHTS
        world.api().upload_file(path_or_fileobj=file, path_in_repo=WEIGHTS, repo_id=name, revision="drafts")
        assert sha256(world.down(name, revision="drafts")) == sha256(file.read_bytes()), kind
    tiny = world.scratch / "tokenizer.model"
    tiny.write_bytes(b"\0\1\2")
    world.api().upload_file(path_or_fileobj=tiny, path_in_repo=tiny.name, repo_id=name, revision="drafts")
    assert world.down(name, tiny.name, revision="drafts") == b"\0\1\2"


@line(52)
def a_file_that_changes_on_the_way(world: World) -> None:
    """One bit of the file is flipped during the upload: nothing is committed, and the client reports the
    failure.
    """
    from wire import PROXY

    assert PROXY is not None
    name = world.name()
    world.api().create_repo(name)
    before = world.api().model_info(name).sha
    PROXY.flip_in_uploads_over = 1 << 20
    try:
        world.api().upload_file(
            path_or_fileobj=world.folders / "large" / WEIGHTS, path_in_repo=WEIGHTS, repo_id=name
        )
    except (OSError, RuntimeError):  # HfHubHTTPError is an OSError; hf_xet raises the other error
        pass
    else:
        raise AssertionError("bytes that changed on the way were taken")
    PROXY.flip_in_uploads_over = None
    assert PROXY.flipped, "nothing was flipped"
    assert world.api().model_info(name).sha == before
    assert not world.api().file_exists(name, WEIGHTS)


@line(57)
def an_upload_that_is_cut(world: World) -> None:
    from wire import PROXY

    assert PROXY is not None
    name = world.name()
    world.api().create_repo(name)
    PROXY.cut_uploads_after, PROXY.cuts = 5 << 20, 1
    file = world.folders / "large" / WEIGHTS
    given_up = False
    try:
        world.api().upload_file(path_or_fileobj=file, path_in_repo=WEIGHTS, repo_id=name)
    except RuntimeError as error:
        given_up = type(error.__cause__).__name__ == "RemoteProtocolError"
        if not given_up:
            raise
        world.api().upload_file(path_or_fileobj=file, path_in_repo=WEIGHTS, repo_id=name)
    assert PROXY.cuts == 0, "nothing was cut"
    assert sha256(world.down(name)) == sha256(file.read_bytes())
    if given_up:
        raise ClientCannot("gives up if an upload is cut; the next call succeeds")
