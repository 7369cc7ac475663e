"""Which base a push claims, for adapters trained on a local folder: the README's quickstart."""

from __future__ import annotations

import re
import shlex
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


def test_a_base_folder_whose_path_could_be_a_name_is_not_reported_as_another_base(
    run, answer, tmp_path: Path
) -> None:
    shutil.copytree(tmp_path / "base", tmp_path / "bases" / "llama")
    tiny_lora(tmp_path / "out", base_name="bases/llama")
    tiny_lora(tmp_path / "named", base_name="elsewhere/model", seed=2)
    run("base", "add", "./base", "--name", "org/model")

    said = run("push", "./out", "acme/tone").stderr

    assert "bases/llama is org/model" in said
    assert "base_name_differs" not in said
    assert answer("show", "acme/tone")["version"]["findings"] == 0
    assert "base_name_differs" not in run("push", "./out", "acme/given", "--base", "org/model").stderr
    (tmp_path / "bases").rename(tmp_path / "elsewhere")
    assert "base_name_differs" not in run("check", "acme/tone").stderr
    assert "base_name_differs" in run("push", "./named", "acme/tone", "--base", "org/model").stderr


def test_an_unregistered_base_folder_is_claimed_by_content_and_resolved_later(
    run, answer, tmp_path: Path
) -> None:
    tiny_lora(tmp_path / "out", base_name="./base")

    said = run("push", "./out", "acme/tone").stderr
    assert "is not registered, or you may not see it; engines need it" in said
    assert answer("show", "acme/tone")["manifest"]["base"]["name"] is None

    run(*printed_command(said))
    assert answer("show", "acme/tone")["version"]["base_status"] == "verified"
    again = answer("push", "./out", "acme/tone")
    assert not again["is_new"], "the same folder is the same version, whatever the base is called by now"


def test_a_version_with_an_unresolvable_base_can_be_bound(run, answer, tmp_path: Path) -> None:
    """The message's command is run word for word: the base was elsewhere when the adapter was pushed."""
    tiny_lora(tmp_path / "out", base_name=str(tmp_path / "scratch"))
    tiny_lora(tmp_path / "out-2", base_name=str(tmp_path / "scratch"), seed=2)
    said = run("push", "./out", "acme/tone").stderr
    run("push", "./out-2", "acme/tone")
    digest = answer("show", "acme/tone@1")["version"]["digest"]
    bind = printed_command(said)
    assert bind == ["base", "bind", "acme/tone@1", "BASE"]
    bind[-1] = "./base"

    unregistered = run(*bind, code=3).stderr
    run(*printed_command(unregistered))
    assert run(*bind, "--all").stdout.split()[:2] == ["acme/tone@1", digest]
    assert [found["base_status"] for found in answer("search", "base:acme/base")] == ["verified"] * 2
    assert answer("base", "bind", "acme/tone@1", "acme/base")[0]["digest"] == digest
    run("verify")


def test_binding_to_a_base_that_does_not_fit_or_is_not_declared_is_refused(
    run, answer, tmp_path: Path
) -> None:
    run("base", "add", "./base", "--name", "org/model")
    tiny_base(tmp_path / "other", seed=5)
    run("base", "add", "./other", "--name", "org/other")
    tiny_lora(tmp_path / "wide", base_name="/gone", hidden=32)
    tiny_lora(tmp_path / "out", base_name="./base")
    run("push", "./wide", "acme/tone")
    run("push", "./out", "acme/tone")

    assert "does not fit org/model" in run("base", "bind", "acme/tone@1", "org/model", code=1).stderr
    assert "declares another base" in run("base", "bind", "acme/tone@2", "org/other", code=4).stderr
    assert "no base 'org/none'" in run("base", "bind", "acme/tone@1", "org/none", code=3).stderr
    assert answer("show", "acme/tone@1")["version"]["base_status"] == "declared"


def test_a_path_that_leads_to_two_bases_is_not_resolved_silently(run, tmp_path: Path) -> None:
    tiny_lora(tmp_path / "out", base_name="./base")
    tiny_base(tmp_path / "out" / "base", seed=5)

    message = run("push", "./out", "acme/tone", code=4).stderr
    assert f"{tmp_path / 'base'}, {tmp_path / 'out' / 'base'}" in message
    run("push", "./out", "acme/tone", "--base", "./base")


def printed_command(text: str) -> list[str]:
    """The first command in a message, without the program's name."""
    words = re.search(r"adaptry (base (?:add|bind) [^`;\n]*)", text)
    assert words, text
    return shlex.split(words[1])


def test_a_registered_name_precedes_a_folder_of_that_name(run, answer, tmp_path: Path) -> None:
    base_id = run("base", "add", "./base", "--name", "org/model").stdout.strip()
    tiny_base(tmp_path / "org" / "model", seed=5)
    tiny_lora(tmp_path / "out", base_name="org/model")

    run("push", "./out", "acme/tone")

    assert answer("show", "acme/tone")["version"]["base_id"] == base_id


@pytest.mark.parametrize("written", ["./gone", "~nobody-of-that-name/base", "./out", "x" * 5000])
def test_a_folder_without_a_checkpoint_is_not_claimed_as_a_base(
    run, answer, tmp_path: Path, written: str
) -> None:
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
def test_a_base_name_must_be_valid_on_the_hub(run, answer, name: str) -> None:
    assert "ORG/MODEL" in run("base", "add", "./base", "--name", name, code=2).stderr
    assert answer("base", "ls") == []


def test_a_base_may_have_a_single_name(run, answer) -> None:
    run("base", "add", "./base", "--name", "gpt2")

    assert answer("base", "show", "gpt2")["names"] == ["gpt2"]


def test_a_deleted_copy_of_a_base_does_not_hide_another(run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tiny_lora(tmp_path / "out")
    shutil.copytree("base", "copy")
    run("base", "add", "./base", "--name", "org/model")
    run("base", "add", "./copy")
    shutil.rmtree("copy")

    run("merge", "--base", "org/model", "./out", "-o", "./merged")

    tiny_base(tmp_path / "base", seed=9)
    message = run("merge", "--base", "org/model", "./out", "-o", "./again", code=3).stderr
    assert f"{tmp_path / 'copy'} no longer exists" in message
    assert f"{tmp_path / 'base'} has changed" in message


def test_a_move_of_an_alias_to_a_version_for_another_base_is_a_warning(run, tmp_path: Path) -> None:
    tiny_base(tmp_path / "other", seed=7)
    run("base", "add", "./base", "--name", "org/model")
    run("base", "add", "./other", "--name", "org/other")
    for seed, name in ((1, "org/model"), (2, "org/other"), (3, "org/other")):
        run("push", str(tiny_lora(tmp_path / f"out-{seed}", base_name=name, seed=seed)), "acme/tone")

    assert "warning" not in run("alias", "set", "acme/tone@1", "prod").stderr
    moved = run("promote", "acme/tone@2").stderr
    assert "version 2 is for the base org/other, and version 1 for org/model: engines" in moved
    assert "warning" not in run("promote", "acme/tone@3").stderr
