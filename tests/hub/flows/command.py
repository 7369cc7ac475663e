"""The `hf` command: line 48, and `hf cache verify` of a file that was altered during the download (56)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from world import CARD, CONFIG, VERSION, WEIGHTS, ClientCannot, World, line

HF = str(Path(sys.executable).with_name("hf"))


def hf(*words: str | Path, code: int = 0) -> str:
    """The output of a command, which must end with this exit code."""
    done = subprocess.run([HF, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, f"hf {words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@line(48)
def the_command(world: World) -> None:
    name, old = world.name(), VERSION < (1, 0)
    repos = "repo" if old else "repos"
    assert "alice" in hf("auth", "whoami")
    hf("upload", name, world.folders / "first")
    hf("upload", name, world.folders / "second" / WEIGHTS, WEIGHTS)
    info = world.api().model_info(name)
    assert {CONFIG, WEIGHTS, CARD} <= {each.rfilename for each in info.siblings}
    hf("download", name)
    hf("download", name, "--include", "*.json", "--local-dir", world.scratch / "some")
    assert (world.scratch / "some" / CONFIG).read_bytes() == world.bytes("first", CONFIG)
    assert not (world.scratch / "some" / WEIGHTS).exists()
    hf("download", name, "--revision", "v1", "--local-dir", world.scratch / "one")
    assert (world.scratch / "one" / WEIGHTS).read_bytes() == world.bytes("first")
    hf(repos, "tag", "create", name, "good", "--revision", "v1")
    assert "good" in hf(repos, "tag", "list", name)
    if old:
        hf("repo-files", "delete", name, CARD)
        assert CARD not in world.api().list_repo_files(name)
        return
    hf("repos", "branch", "create", name, "steps")
    hf("repos", "settings", name, "--private")
    hf("repos", "delete-files", name, CARD)
    assert CARD not in world.api().list_repo_files(name)
    assert name in hf(
        "models", "ls", "--search", name.partition("/")[2], "--author", "acme", "--format", "json"
    )
    assert info.sha[:7] in hf("models", "info", name, "--revision", info.sha)
    hf("download", name)
    hf("cache", "verify", name)
    hf("repos", "move", name, world.name("moved"))
    hf(
        "repos",
        "delete",
        world.name("moved"),
        *(["--yes"] if "--yes" in hf("repos", "delete", "--help") else []),
    )
    assert not world.api().repo_exists(world.name("moved"))


@line(56)
def a_download_that_changed_on_the_way(world: World) -> None:
    """The client compares only sizes; then `hf cache verify` requests the digests, and detects the change."""
    from wire import PROXY

    assert PROXY is not None
    if VERSION < (1, 1):
        raise ClientCannot("has no `hf cache verify`, and compares only sizes")
    name = world.pushed(folder="large")
    PROXY.flip_in_downloads_over = 2 << 20
    file = world.api().hf_hub_download(name, WEIGHTS)
    PROXY.flip_in_downloads_over = None
    assert Path(file).read_bytes() != world.bytes("large")
    assert WEIGHTS in hf("cache", "verify", name, code=1)
