"""Files on their way in: lines 6 to 9, 50, and what must not get in (52)."""

from __future__ import annotations

import io
import sys

from world import CARD, HAS_XET, WEIGHTS, World, has_commit_id, line, sha256


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
    """The server makes parts of what is over its limit; the client must be one that sends them."""
    if HAS_XET:  # an open file is sent by Git-LFS all the same
        upload: object = io.BytesIO(world.bytes("large"))
    else:
        upload = world.folders / "large" / WEIGHTS
    name = world.name()
    world.api().create_repo(name)
    world.api().upload_file(path_or_fileobj=upload, path_in_repo=WEIGHTS, repo_id=name)
    assert sha256(world.down(name)) == sha256(world.bytes("large"))


@line(50)
def bytes_of_every_kind(world: World) -> None:
    """Zeros, noise, and three bytes: of each kind of chunk that Xet packs in its own way."""
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
    """A byte of it is flipped on the way up: nothing is committed, and the client says that it failed."""
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
    except (OSError, RuntimeError):  # HfHubHTTPError is an OSError; hf_xet raises the other
        pass
    else:
        raise AssertionError("bytes that changed on the way were taken")
    PROXY.flip_in_uploads_over = None
    assert PROXY.flipped, "nothing was flipped"
    assert world.api().model_info(name).sha == before
    assert not world.api().file_exists(name, WEIGHTS)
