"""Invalid input: one sentence with a remedy, and a suitable exit code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.testing.samples import random_tensor, tiny_lora, write_safetensors

pytestmark = pytest.mark.usefixtures("out")


def edit_config(folder: Path, **fields: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_values_of_any_length_are_cut_in_messages(run) -> None:
    tiny_lora(Path("out"))
    long = "a" * 100_000
    for words in (
        ("push", "./out", "acme/tone", "--base", long),
        ("pull", "acme/tone", f"./{long}", "./out"),
        ("merge", "--base", "./out", "./out", "-o", "./merged", "--dtype", long),
    ):
        assert len(run(*words, code=2).stderr) < 600


def test_a_folder_without_an_adapter_is_refused(run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    assert (
        "has no adapter: it lacks adapter_config.json" in run("push", "./empty", "acme/tone", code=3).stderr
    )
    assert "no folder at" in run("push", "./nowhere", "acme/tone", code=3).stderr


def test_a_base_model_is_refused_as_an_adapter_with_the_right_command(run, base: Path) -> None:
    assert "adaptry base add" in run("push", "./base", "acme/tone", code=3).stderr


def test_a_pickle_is_refused_with_the_command_that_converts_it(run, out: Path) -> None:
    (out / "adapter_model.safetensors").rename(out / "adapter_model.bin")

    refused = run("push", "./out", "acme/tone", code=2)

    assert "safetensors.torch" in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_weights_in_parts_are_refused_with_the_line_that_joins_them(
    run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    load_file, save_file = safetensors.load_file, safetensors.save_file
    weights = load_file(out / "adapter_model.safetensors")
    names = sorted(weights)
    for number, part in enumerate((names[:3], names[3:]), 1):
        save_file(
            {name: weights[name] for name in part}, out / f"adapter_model-0000{number}-of-00002.safetensors"
        )
    (out / "adapter_model.safetensors").unlink()

    refused = run("push", "./out", "acme/tone", code=2)
    (line,) = re.findall(r"python (-c \".*\")", refused.stderr)
    monkeypatch.chdir(out)
    subprocess.run([sys.executable, *shlex.split(line)], check=True)
    monkeypatch.chdir(out.parent)

    assert load_file(out / "adapter_model.safetensors").keys() == weights.keys()
    run("push", "./out", "acme/tone")


@pytest.mark.parametrize("kept", [4, 100, 2000], ids=["in the length", "in the header", "in the weights"])
def test_truncated_weights_are_invalid_data_and_not_a_usage_error(
    run, out: Path, base: Path, kept: int
) -> None:
    weights = out / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])

    run("push", "./out", "acme/tone", code=1)
    run("inspect", "./out", code=1)
    run("check", "./out", code=1)
    run("merge", "./out", "--base", "./base", "-o", "./merged", code=1)
    run("check", "./out", "--wieghts", code=2)


@pytest.mark.parametrize("text", ["{", "[]", '{"r": 8, "r": 9}', '{"trust_remote_code": true}'])
def test_a_malformed_config_is_invalid_data(run, out: Path, text: str) -> None:
    (out / "adapter_config.json").write_text(text)

    assert "adapter_config.json" in run("check", "./out", code=1).stderr
    run("push", "./out", "acme/tone", code=1)


def test_a_config_with_another_rank_than_the_tensors_blocks(run, answer, out: Path) -> None:
    edit_config(out, r=16)

    report = answer("check", "./out", code=1)

    assert any("16" in finding["reason"] for finding in report["findings"])
    run("push", "./out", "acme/tone", code=1)


@pytest.mark.parametrize(
    "ref", ["tone", "acme/", "acme/tone@", "acme/tone@sha256:12", "a b/c", "acme/t@one@two"]
)
def test_a_ref_that_does_not_parse_shows_how_one_is_written(run, ref: str) -> None:
    assert "a ref is namespace/name" in run("show", ref, code=2).stderr


def test_a_bare_name_that_is_also_a_folder_shows_both_spellings(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "acme" / "tone")

    message = run("check", "acme/tone", code=2).stderr

    assert "./acme/tone" in message
    assert "acme/tone@latest" in message
    assert "./out" in run("inspect", "out", code=2).stderr


def test_an_alias_that_moved_in_between_is_a_conflict(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "better", seed=2)
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", "./better", "acme/tone")
    run("alias", "set", "acme/tone@2", "prod", "--expect", "1")

    late = run("alias", "set", "acme/tone@2", "prod", "--expect", "1", code=4)

    assert "is at version 2, not at version 1; look again and retry" in late.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("push", "./out", "acme/tone", "--metric", "accuracy"), "name=number"),
        (("push", "./out", "acme/tone", "--metric", "accuracy=good"), "name=number"),
        (("push", "./out", "acme/tone", "--metric", "accuracy=nan"), "name=number"),
        (("push", "./out", "acme/tone", "--metric", "=1"), "name=number"),
        (("push", "./out", "acme/tone", "--metric", "a=1", "--metric", "a=2"), "twice"),
        (("push", "./out", "acme/tone", "--alias", "latest"), "choose a word such as prod"),
        (("push", "./out", "acme/tone", "--tag", "two words"), "--tag"),
        (("push", "./out", "acme/tone", "--base", "sha256:0123456789ab"), "not a complete id"),
        (("push", "./out", "acme/tone@2"), "letters, digits"),
        (("push", "./out", "api/tone"), "reserved"),
        (("pull",), "name a version (REF)"),
        (("pull", "acme/tone", "--locked", "adaptry.lock"), "name a version (REF)"),
        (("lock",), "--check"),
        (("edit", "acme/tone"), "nothing to change"),
        (("search", "colour:red"), "colour"),
        (("rollback", "acme/tone@3"), "acme/tone@ALIAS"),
        (("copy", "acme/tone"), "--to-registry"),
        (("login", "./folder"), "needs no token"),
        (("nonsense",), "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_contradictory_call_is_a_usage_error(run, words: tuple[str, ...], says: str) -> None:
    result = run(*words, code=2)

    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_an_unreachable_server_is_reported(run) -> None:
    message = run("ls", "--registry", "http://127.0.0.1:9", code=6).stderr

    assert "http://127.0.0.1:9" in message


def test_a_pull_into_the_current_folder_is_refused(run, tmp_path: Path) -> None:
    run("push", "./out", "acme/tone")

    assert "current folder" in run("pull", "acme/tone", "--to", ".", "--force", code=4).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_missing_lock_file_is_reported(run) -> None:
    assert "adaptry lock REF" in run("pull", "--locked", "adaptry.lock", code=3).stderr


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("cache", "ls", "--cache", "./out/adapter_config.json"), "cannot use "),
        (("cache", "ls", "--cache", "./" + "n" * 3000), "cannot use "),
        (("jobs", "show", "caf\udce9"), "not UTF-8 text"),
        (("group", "delete", "caf\udce9"), "not UTF-8 text"),
        (("grant", "rm", "99999999999999999999"), "is too large"),
    ],
)
def test_an_unusable_path_or_argument_is_a_usage_error_and_not_a_bug(
    run, words: tuple[str, ...], problem: str
) -> None:
    run("push", "./out", "acme/tone")

    refused = run(*words, code=2).stderr

    assert problem in refused
    assert "bug in Adaptry" not in refused


def test_an_unknown_alias_is_reported_with_the_command_that_lists_aliases(run) -> None:
    run("push", "./out", "acme/tone")

    assert "`adaptry alias ls acme/tone`" in run("rollback", "acme/tone", code=3).stderr
    assert "`adaptry alias ls acme/tone`" in run("alias", "rm", "acme/tone@gone", code=3).stderr


def test_a_path_instead_of_an_adapter_name_is_reported_as_such(run) -> None:
    message = run("push", "./out", "./other", code=2).stderr

    assert "'./other' is a path, not the name of an adapter, such as acme/tone" in message


def test_a_bare_file_name_is_reported_as_a_path(run) -> None:
    Path("tone.safetensors").write_bytes(b"anything")

    assert "write ./tone.safetensors for the file" in run("check", "tone.safetensors", code=2).stderr


def test_a_comparison_without_a_number_is_reported_as_such(run) -> None:
    assert "'rank<=' lacks the number to compare with" in run("search", "rank<=", code=2).stderr


def test_a_file_name_that_is_not_allowed_is_refused_with_one_that_is(run, out: Path) -> None:
    """kohya's files may have any name."""
    Path("style").mkdir()
    tensors = {
        "lora_unet_mid_block_attentions_0_to_q.lora_down.weight": random_tensor((4, 8), 1),
        "lora_unet_mid_block_attentions_0_to_q.lora_up.weight": random_tensor((8, 4), 2),
    }
    named = Path("style/Größe (v2) .safetensors")
    write_safetensors(named, tensors)

    refused = run("push", "./style", "acme/style", code=2).stderr
    (better,) = re.findall(r"rename it, for example to (\S+):", refused)
    named.rename(named.with_name(better))

    run("push", "./style", "acme/style")


def test_a_log_without_values_beside_an_adapter_is_reported_as_such(run, out: Path) -> None:
    (out / "trainer_state.json").write_text('{"log_history": []}')

    pushed = run("push", "./out", "acme/tone").stderr

    assert "not added as evidence: trainer_state.json has no values: nothing was logged" in pushed
