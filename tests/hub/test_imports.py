"""Adapters and bases imported from a hub (here a second Adaptry server) by the command line, in a separate
process.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.transfer import push
from adaptry.registry.http import HttpRegistry
from adaptry.registry.records import AdapterEdit
from adaptry.storage.connect import open_local
from adaptry.testing.quantised_samples import quantised_copy
from adaptry.testing.samples import tiny_base, tiny_lora, write_safetensors

from .checklist_server import ADAPTRY, Site, environment
from .flows.wire import Proxy

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub(site: Site) -> HttpRegistry:
    """The registry behind the hub, which its owner fills."""
    return HttpRegistry(site.url, site.tokens["alice"])


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The folder of the registry that imports."""
    return tmp_path / "mine"


@pytest.fixture
def run(site: Site, mine: Path, tmp_path: Path) -> Run:
    def command(
        *words: str, code: int = 0, endpoint: str = "", token: str = "alice"
    ) -> subprocess.CompletedProcess[str]:
        env = environment(endpoint or site.url, site.tokens[token], tmp_path)
        env |= {"ADAPTRY_HOME": str(mine), "ADAPTRY_URL": str(mine)}
        done = subprocess.run([*ADAPTRY, *words], capture_output=True, text=True, check=False, env=env)
        assert done.returncode == code, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return command


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    proxy = Proxy(site.url)
    yield proxy
    proxy.close()


def named(request: pytest.FixtureRequest) -> str:
    """A word that only this test uses, on a server that all tests share."""
    return request.node.name.replace("_", "-")[:80]


def filled(hub: HttpRegistry, site: Site, name: str, *folders: str) -> str:
    for folder in folders:
        push(hub, open_dir(site.folders / folder), name)
    return name


def kept(mine: Path, ref: str) -> Any:
    """(`Any`: a detail, whose fields tests read.)"""
    registry = open_local(mine)
    try:
        return registry.versions.detail(Ref.parse(ref))
    finally:
        registry.close()


def test_an_imported_adapter_becomes_a_version_with_its_origin(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run, mine: Path
) -> None:
    name = filled(hub, site, f"acme/{named(request)}", "first", "second")
    run("push", f"hf:{name}", "my/tone")
    told = run("push", f"hf:{name}@v1", "my/tone")
    assert "my/tone@2" in told.stdout
    newest, oldest = kept(mine, "my/tone@1"), kept(mine, "my/tone@2")
    assert newest.version.weights == hub.versions.get(Ref.parse(f"{name}@2")).weights
    assert oldest.version.weights == hub.versions.get(Ref.parse(f"{name}@1")).weights
    assert oldest.manifest.provenance == {
        "hub_repository": name,
        "hub_commit": hub.versions.get(Ref.parse(f"{name}@1")).digest.short_id,
        "hub_endpoint": site.url,
    }


@pytest.mark.heavy
def test_a_repeated_commit_is_the_same_version(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run
) -> None:
    name = filled(hub, site, f"acme/{named(request)}", "first")
    first = run("push", f"hf:{name}", "my/tone")
    assert run("push", f"hf:{name}", "my/tone").stdout == first.stdout


@pytest.mark.parametrize("there", ["acme/no-such-adapter", "acme/no-such-adapter@v9"])
def test_an_absent_hub_repository_is_not_found(run: Run, there: str) -> None:
    told = run("push", f"hf:{there}", "my/tone", code=3)
    assert f"hf:{there} does not exist at" in told.stderr


def test_a_hub_repository_hidden_from_the_token_is_absent(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run
) -> None:
    name = filled(hub, site, f"acme/{named(request)}", "first")
    assert "HF_TOKEN" in run("push", f"hf:{name}", "my/tone", code=3, token="stranger").stderr


def test_a_token_that_the_hub_rejects_is_reported(run: Run, site: Site, mine: Path, tmp_path: Path) -> None:
    env = environment(site.url, "adp_of_nobody", tmp_path) | {"ADAPTRY_HOME": str(mine)}
    command = [*ADAPTRY, "push", "hf:acme/tone", "my/tone"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, "HF_TOKEN" in done.stderr) == (5, True), done.stderr


@pytest.mark.parametrize("words", [("push", "hf:acme/a/b", "my/x"), ("base", "add", "hf:"), ("import",)])
def test_a_malformed_hub_reference_shows_the_right_form(run: Run, words: tuple[str, ...]) -> None:
    assert "hf:" in run(*words, code=2).stderr


def test_a_hub_repository_without_an_adapter_is_refused(run: Run) -> None:
    assert "base add" in run("push", "hf:org/tiny", "my/tone", code=3).stderr


def test_a_broken_download_continues_at_its_offset(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run, proxy: Proxy, mine: Path
) -> None:
    name = filled(hub, site, f"acme/{named(request)}", "large")
    proxy.cut_downloads_after, proxy.cuts = 12 << 20, 2
    run("push", f"hf:{name}", "my/tone", endpoint=proxy.url)
    assert proxy.cuts == 0
    assert kept(mine, "my/tone").version.weights == hub.versions.get(Ref.parse(name)).weights


def test_bytes_that_change_on_the_way_are_refused(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run, proxy: Proxy
) -> None:
    name = filled(hub, site, f"acme/{named(request)}", "large")
    proxy.flip_in_downloads_over = 2 << 20
    told = run("push", f"hf:{name}", "my/tone", code=7, endpoint=proxy.url)
    assert "Nothing was kept" in told.stderr
    assert proxy.flipped


def test_all_adapters_of_an_author_are_imported_once(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run, mine: Path
) -> None:
    word = named(request)
    names = [filled(hub, site, f"acme/{word}-{each}", "first") for each in ("a", "b")]
    hub.adapters.create(AdapterName.parse(f"acme/{word}-empty"), AdapterEdit())
    asked = ("import", "hf:acme", "--search", word, "--to", "my", "--json")
    planned = json.loads(run(*asked, "--dry-run").stdout)
    assert {each["name"] for each in planned if not each["passed_over"]} == {f"my/{word}-a", f"my/{word}-b"}
    assert not mine.joinpath("catalog.sqlite").exists() or not open_local(mine).adapters.list("my").items
    taken = json.loads(run(*asked).stdout)
    assert {each["repository"]: each["number"] for each in taken if each["number"]} == dict.fromkeys(names, 1)
    again = json.loads(run(*asked).stdout)
    assert {each["passed_over"] for each in again} == {
        "is already imported",
        "has no adapter in a known format",
    }
    filled(hub, site, names[0], "second")
    later = json.loads(run(*asked).stdout)
    assert [each["number"] for each in later if each["number"]] == [2]


@pytest.mark.heavy
def test_a_failing_import_does_not_stop_the_others(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run, tmp_path: Path
) -> None:
    word = named(request)
    misfit = tiny_lora(tmp_path / "misfit", hidden=32, base_name="org/own")
    push(hub, open_dir(misfit), f"acme/{word}-a")
    filled(hub, site, f"acme/{word}-b", "first")
    run("base", "add", str(site.folders / "base"), "--name", "org/own")
    told = run("import", "hf:acme", "--search", word, "--to", "my", code=1)
    assert f"my/{word}-b@1" in told.stdout
    assert f"hf:acme/{word}-a failed" in told.stderr


@pytest.mark.heavy
def test_adapters_are_imported_by_name_and_by_tag(
    request: pytest.FixtureRequest, hub: HttpRegistry, site: Site, run: Run
) -> None:
    word = named(request)
    for each in ("a", "b"):
        filled(hub, site, f"acme/{word}-{each}", "first")
    assert f"acme/{word}-a@1" in run("import", f"hf:acme/{word}-a").stdout
    hub.adapters.edit(AdapterName.parse(f"acme/{word}-b"), AdapterEdit(tags=(word,)))
    assert f"my/{word}-b@1" in run("import", "hf:acme", "--filter", word, "--to", "my").stdout


def test_a_base_on_a_hub_is_the_base_in_a_folder(run: Run, site: Site, mine: Path) -> None:
    told = run("base", "add", "hf:org/tiny", "--name", "also/tiny", token="reader")
    record = fingerprint(open_checkpoint(site.folders / "base"))
    assert told.stdout.strip() == str(record.id)
    registry = open_local(mine)
    info = registry.bases.get("org/tiny")
    assert info.names == ("also/tiny", "org/tiny")
    assert registry.bases.record(info.id).file_hashes.keys() == {"model.safetensors"}
    registry.close()


@pytest.mark.heavy
def test_a_sharded_and_a_quantised_base_are_registered_from_a_hub(
    run: Run, site: Site, tmp_path: Path
) -> None:
    sharded = tiny_base(tmp_path / "sharded", seed=7, shards=3)
    packed = quantised_copy(sharded, tmp_path / "packed", nested=True)
    for folder in (sharded, packed):
        _store(site, folder, f"org/{folder.name}")
        told = run("base", "add", f"hf:org/{folder.name}")
        assert told.stdout.strip() == str(fingerprint(open_checkpoint(folder)).id)
    assert "quantised" in told.stderr


def test_only_small_parts_of_a_large_base_are_read(
    run: Run, site: Site, tmp_path: Path, proxy: Proxy
) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    shape = (1 << 11, 1 << 11)
    noise = [os.urandom(1 << 20) * 8 for _ in range(4)]  # any bytes are valid in BF16
    tensors = {
        f"model.layers.{layer}.mlp.up_proj.weight": ("BF16", shape, noise[layer]) for layer in range(4)
    }
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    _store(site, folder, "org/wide")
    told = run("base", "add", "hf:org/wide", endpoint=proxy.url)
    assert told.stdout.strip() == str(fingerprint(open_checkpoint(folder)).id)
    assert proxy.passed_down < 2 << 20, "of 32 MB"


def test_operations_that_read_all_weights_are_refused_for_a_hub_base(run: Run) -> None:
    assert "hf download org/tiny" in run("base", "add", "hf:org/tiny", "--full", code=2).stderr


def _store(site: Site, folder: Path, name: str) -> None:
    words = ("base", "add", str(folder), "--name", name, "--store", "--visibility", "internal")
    words += ("--registry", str(site.data))
    subprocess.run([*ADAPTRY, *words], check=True, capture_output=True)
