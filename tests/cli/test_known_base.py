"""Commands without `--base` use the adapter's own base, if its content shows which one it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.bases.hub_cache import hub_snapshot, hub_snapshots
from adaptry.testing.samples import tiny_base, tiny_lora

pytestmark = pytest.mark.usefixtures("base", "hub_cache")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hub clients."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache: Path, model: Path, name: str = "org/tiny") -> Path:
    """A snapshot of `model` in the cache, as the Hub's clients write it: links to files named by digest."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        shutil.copy(file, repository / "blobs" / file.name)
        (snapshot / file.name).symlink_to(Path("../../blobs", file.name))
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


def renamed(folder: Path, **fields: str | None) -> None:
    """Changes fields of an adapter's config."""
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


def test_a_merge_uses_the_folder_that_the_config_names(run, base: Path) -> None:
    tiny_lora(Path("out"), base_name="./base")

    result = run("merge", "./out", "-o", "./merged")
    named = run("merge", "./out", "--base", "./base", "-o", "./named")

    assert "base: ./base, the model that the config of ./out names" in result.stderr
    assert "base: " not in named.stderr
    assert Path("merged/model.safetensors").read_bytes() == Path("named/model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_merge_uses_the_recorded_base_of_a_version(run, out: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone")

    assert "base: org/tiny, as recorded for acme/tone@1" in run("merge", "acme/tone", "-o", "./m").stderr
    assert (
        "org/tiny, the registered base that the config of ./out names"
        in run("merge", "./out", "acme/tone", "-o", "./both").stderr
    )


def test_weights_in_the_hubs_cache_are_used_only_if_the_fingerprint_is_the_recorded_one(
    run, out: Path, base: Path, hub_cache: Path, tmp_path: Path
) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone")
    base.rename(tmp_path / "moved")
    snapshot = cached(hub_cache, tiny_base(tmp_path / "other", seed=5))

    refused = run("merge", "acme/tone", "-o", "./m", code=3)
    shutil.rmtree(hub_cache)
    cached(hub_cache, tmp_path / "moved")
    run("merge", "acme/tone", "-o", "./m")

    assert f"{snapshot} has other weights" in refused.stderr
    assert open_checkpoint("m").tensors


@pytest.mark.slow
def test_a_model_with_only_the_right_name_is_suggested_and_not_used(
    run, out: Path, base: Path, hub_cache: Path
) -> None:
    snapshot = cached(hub_cache, base)
    run("push", "./out", "acme/tone")

    for source in ("./out", "acme/tone"):
        refused = run("merge", source, "-o", "./m", code=3).stderr
        (remedy,) = re.findall(r"--base (/\S+)", refused)
        assert "'org/tiny', which is not" in refused
        assert remedy == str(snapshot)
        run("merge", source, "--base", remedy, "-o", f"./{source.replace('/', '-')}-m")


@pytest.mark.slow
def test_a_cached_snapshot_of_the_commit_in_the_config_is_used(
    run, out: Path, base: Path, hub_cache: Path
) -> None:
    snapshot = cached(hub_cache, base)
    renamed(out, revision=COMMIT)

    assert f"base: {snapshot}" in run("merge", "./out", "-o", "./m").stderr
    renamed(out, revision="main")
    run("merge", "./out", "-o", "./again", code=3)


def test_the_hubs_clients_find_the_same_snapshots(
    base: Path, hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("huggingface_hub")
    snapshot = cached(hub_cache, base)

    found = client.try_to_load_from_cache("org/tiny", "config.json", cache_dir=hub_cache, revision=COMMIT)

    assert hub_snapshots("org/tiny") == (snapshot,)
    assert hub_snapshot("org/tiny", COMMIT) == Path(found).parent
    assert hub_snapshots("../tiny") == hub_snapshots("./base") == ()


@pytest.mark.slow
def test_a_declared_base_is_found_again_by_its_fingerprint(run, base: Path, tmp_path: Path) -> None:
    tiny_lora(Path("out"), base_name="./base")
    run("push", "./out", "acme/tone")

    result = run("merge", "acme/tone", "-o", "./m")
    shutil.rmtree(base)
    tiny_base(base, seed=5)
    refused = run("merge", "acme/tone", "-o", "./again", code=3)

    assert "./base, a folder with the base that acme/tone@1 declares" in result.stderr.replace(
        f"{tmp_path}", "."
    )
    assert "acme/tone@1 declares the base sha256:" in refused.stderr
    assert str(base) in refused.stderr


def test_a_missing_shard_and_an_adapter_with_two_possible_bases_are_named(run, tmp_path: Path) -> None:
    next(tiny_base(tmp_path / "sharded", shards=2).glob("*-00002-of-*")).unlink()
    tiny_lora(Path("out"), base_name="./sharded")
    tiny_lora(Path("other/out"), base_name="./base")
    tiny_base(Path("other/base"), seed=5)

    assert "names 'model-00002-of-00002.safetensors', which is missing" in (
        run("merge", "./out", "-o", "./m", code=3).stderr
    )
    assert "error: ./other/out: its config names the base './base', but these folders have different" in (
        run("merge", "./other/out", "-o", "./m", code=4).stderr
    )


@pytest.mark.slow
def test_a_copy_that_cannot_be_read_does_not_hide_a_good_one(run, base: Path, hub_cache: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    config = cached(hub_cache, base) / "config.json"
    config.unlink()
    config.mkdir()
    good = hub_cache / "models--org--tiny" / "snapshots" / "good"
    shutil.copytree(base, good)
    shutil.rmtree(base)
    os.utime(good, (1, 1))
    tiny_lora(Path("out"))

    run("merge", "./out", "-o", "./m")


@pytest.mark.slow
def test_a_path_of_another_machine_is_not_looked_up_nor_suggested_as_a_name(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_lora(tmp_path / "there" / "out", base_name="./base")
    monkeypatch.chdir(tmp_path / "there")
    shutil.move(tmp_path / "base", tmp_path / "gone")
    run("push", "./out", "acme/tone")
    tiny_base(tmp_path / "there" / "base", seed=5)
    run("base", "add", "./base", "--name", "acme/base")

    refused = run("merge", "acme/tone", "-o", "./m", code=3).stderr
    (command,) = re.findall(r"`adaptry (base bind [^`]*)`", refused)

    assert "--name ./base" not in refused
    run(*shlex.split(command.replace("BASE", "acme/base")))


def test_adapters_of_different_bases_are_not_merged_without_a_choice(run, tmp_path: Path) -> None:
    tiny_base(tmp_path / "other", seed=5)
    tiny_lora(Path("one"), base_name="./base")
    tiny_lora(Path("two"), base_name="./other", seed=3)

    refused = run("merge", "./one", "./two", "-o", "./m", code=1).stderr

    assert "./base" in refused and "./other" in refused and "--base BASE" in refused


@pytest.mark.slow
def test_the_registration_that_a_refused_merge_suggests_makes_it_possible(run, out: Path) -> None:
    run("push", "./out", "acme/tone")

    refused = run("merge", "acme/tone", "-o", "./m", code=3).stderr
    (command,) = re.findall(r"`adaptry (base add [^`]*)`", refused)
    run(*shlex.split(command.replace("DIR", "./base")))

    run("merge", "acme/tone", "-o", "./m")


@pytest.mark.slow
def test_an_export_uses_the_folder_that_the_config_names(run) -> None:
    pytest.importorskip("gguf")
    tiny_lora(Path("out"), base_name="./base")

    result = run("export", "./out", "--format", "gguf", "-o", "./exported")
    renamed(Path("out"), base_model_name_or_path="./gone")
    refused = run("export", "./out", "--format", "gguf", "-o", "./again", code=1)

    assert "base: ./base, the model that the config of ./out names" in result.stderr
    assert "a GGUF adapter needs the base: the config of ./out names the base './gone'" in refused.stderr


@pytest.mark.slow
def test_a_conversion_uses_the_folder_that_the_config_names(run) -> None:
    tiny_lora(Path("out"), base_name="./base")

    result = run("convert", "./out", "--rank", "2", "-o", "./converted")

    assert "base: ./base, the model that the config of ./out names" in result.stderr
    assert open_dir("converted").config.base_name == "./base"


@pytest.mark.slow
def test_a_registered_base_may_have_the_name_of_a_folder_here(run, base: Path, out: Path) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    shutil.copytree(base, "org/tiny")

    result = run("convert", "./out", "--rank", "2", "-o", "./converted")

    assert "base: org/tiny, the registered base that the config of ./out names" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["combine", "stack"])
def test_adapters_are_combined_for_the_base_that_their_configs_name(
    run, tmp_path: Path, command: str
) -> None:
    tiny_base(tmp_path / "other", seed=5)
    tiny_lora(Path("one"), base_name="./base")
    tiny_lora(Path("two"), base_name="./base", seed=2)
    tiny_lora(Path("elsewhere"), base_name="./other", seed=3)

    result = run(command, "./one", "./two", "-o", "./both")
    refused = run(command, "./one", "./elsewhere", "-o", "./mixed", code=1)

    assert "base: ./base, the model that the config of ./one names" in result.stderr
    assert "assumed, not checked" not in result.stderr
    assert "./elsewhere is for the base" in refused.stderr and "--other-base" in refused.stderr


@pytest.mark.slow
def test_a_combination_that_needs_a_base_says_why_it_is_not_known(run) -> None:
    pytest.importorskip("gguf")
    tiny_lora(Path("out"), base_name="./base")
    run("export", "./out", "--format", "gguf", "-o", "./lora")
    (file,) = Path("lora").glob("*.gguf")

    refused = run("combine", f"./{file}", "./out", "-o", "./both", code=1).stderr
    run("combine", f"./{file}", "./out", "--base", "./base", "-o", "./both")

    assert "names are only in the base: " in refused
    assert refused.count("--base BASE") == 1
