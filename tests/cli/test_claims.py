"""Which base a push claims: the README's quickstart, for adapters that were trained on a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_base, tiny_lora

pytestmark = pytest.mark.usefixtures("base")


@pytest.mark.parametrize("written", ["./base", "base", "../base", "{here}/base"])
def test_the_quickstart_works_when_trained_from_a_folder(run, answer, tmp_path: Path, written: str) -> None:
    written = written.format(here=tmp_path)
    tiny_lora(tmp_path / "out", base_name=written)
    tiny_lora(tmp_path / "out-2", base_name=written, seed=2)

    base_id = run("base", "add", "./base", "--name", "org/model").stdout.strip()
    pushed = run("push", "./out", "acme/tone", "--metric", "accuracy=0.91")
    assert "base_unknown" not in pushed.stderr
    assert "is org/model" in pushed.stderr
    found = answer("search", "base:org/model rank<=16 metric.accuracy>=0.9")
    assert [(version["base_id"], version["base_status"]) for version in found] == [(base_id, "verified")]
    assert written not in str(answer("show", "acme/tone")["manifest"]["base"])

    run("check", "./out", "--base", "org/model")
    run("alias", "set", "acme/tone@1", "prod")
    run("push", "./out-2", "acme/tone", "--metric", "accuracy=0.93", "--alias", "staging")
    run("promote", "acme/tone@staging")
    run("rollback", "acme/tone@prod")
    run("pull", "acme/tone@prod", "--to", "./tone")
    run("lock", "acme/tone@prod", "-o", "adaptry.lock")
    assert answer("show", "acme/tone@prod")["version"]["number"] == 1


def test_a_folder_that_is_not_registered_is_claimed_by_content_and_settled_later(
    run, answer, tmp_path: Path
) -> None:
    tiny_lora(tmp_path / "out", base_name="./base")

    assert "`adaptry base add base --name ORG/MODEL`" in run("push", "./out", "acme/tone").stderr.replace(
        "./", ""
    )
    assert answer("show", "acme/tone")["manifest"]["base"]["id"] is not None

    run("base", "add", "./base", "--name", "org/model")
    assert answer("show", "acme/tone")["version"]["base_status"] == "verified"


def test_a_known_name_is_a_name_even_where_a_folder_is_called_so(run, answer, tmp_path: Path) -> None:
    base_id = run("base", "add", "./base", "--name", "org/model").stdout.strip()
    tiny_base(tmp_path / "org" / "model", seed=5)
    tiny_lora(tmp_path / "out", base_name="org/model")

    run("push", "./out", "acme/tone")

    assert answer("show", "acme/tone")["version"]["base_id"] == base_id


@pytest.mark.parametrize("written", ["./gone", "~nobody-of-that-name/base", "./out", "x" * 5000])
def test_a_folder_that_is_no_checkpoint_claims_nothing(run, answer, tmp_path: Path, written: str) -> None:
    tiny_lora(tmp_path / "out", base_name=written)

    run("push", "./out", "acme/tone")

    assert answer("show", "acme/tone")["manifest"]["base"] is None


def test_a_version_is_checked_against_its_own_base(run, answer, tmp_path: Path) -> None:
    run("base", "add", "./base", "--name", "org/model")
    tiny_lora(tmp_path / "misfit", hidden=32, base_name="org/model")
    tiny_lora(tmp_path / "out", base_name="org/model")
    run("push", "./misfit", "acme/tone", "--force", "--reason", "to see it fail")
    run("push", "./out", "acme/tone")

    assert answer("check", "acme/tone@1", code=1)["blocked"] is True
    assert "against org/model" in run("check", "acme/tone@2").stderr
    for number, code in ((1, 1), (2, 0)):
        shown = answer("show", f"acme/tone@{number}")["report"]["findings"]
        assert answer("check", f"acme/tone@{number}", code=code)["findings"] == shown


@pytest.mark.parametrize("name", ["./base", "ev/il name", "a/b/c", "/abs", "org/", "con", "a..b", ""])
def test_a_name_for_a_base_is_one_the_hub_could_have(run, answer, name: str) -> None:
    assert "ORG/MODEL" in run("base", "add", "./base", "--name", name, code=2).stderr
    assert answer("base", "ls") == []


def test_a_base_may_have_a_single_name(run, answer) -> None:
    run("base", "add", "./base", "--name", "gpt2")

    assert answer("base", "show", "gpt2")["names"] == ["gpt2"]


def test_one_copy_of_a_base_that_is_gone_does_not_hide_another(run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tiny_lora(tmp_path / "out")
    shutil.copytree("base", "copy")
    run("base", "add", "./base", "--name", "org/model")
    run("base", "add", "./copy")
    shutil.rmtree("copy")

    run("merge", "--base", "org/model", "./out", "-o", "./merged")

    tiny_base(tmp_path / "base", seed=9)
    message = run("merge", "--base", "org/model", "./out", "-o", "./again", code=3).stderr
    assert f"{tmp_path / 'copy'} is gone" in message
    assert f"{tmp_path / 'base'} has changed" in message
