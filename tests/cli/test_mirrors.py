"""`adaptry gc`, `mirror` and `bundle` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.testing.samples import tiny_base
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

pytestmark = pytest.mark.usefixtures("out", "better")

THERE, HERE = ("--registry", "./there"), ("--registry", "./here")


def test_gc_reports_marked_and_then_deleted_files(run, answer) -> None:
    run(*HERE, "push", "./out", "acme/tone")
    run(*HERE, "delete", "acme/tone", "--yes")
    assert "would delete 0 files" in run(*HERE, "gc", "--dry-run").stdout
    assert "deleted 0 files (0 B); 2 files" in run(*HERE, "gc").stdout
    assert answer(*HERE, "gc", "--grace", "0")["deleted"] == 2
    assert run(*HERE, "gc", "--grace", "0").stdout == "deleted 0 files (0 B)\n"


def test_gc_accepts_a_grace_period_and_a_folder(run, tmp_path: Path) -> None:
    for wrong in ("1", "24 hours", "-1h", "h", "9999999d"):
        assert "not a duration" in run(*HERE, "gc", "--grace", wrong, code=2).stderr
    assert "on the server's machine" in run("--registry", "http://127.0.0.1:9", "gc", code=2).stderr
    assert "no registry" in run(*HERE, "gc", code=3).stderr


def test_a_registry_follows_another(run, answer) -> None:
    run(*THERE, "push", "./out", "acme/tone", "--metric", "accuracy=0.5", "--alias", "prod")
    assert "copy acme/tone@1" in run(*HERE, "mirror", "--from", "./there", "--dry-run").stdout
    assert run(*HERE, "mirror", "--from", "./there", "--aliases").stdout == (
        "copied acme/tone@1\nmoved acme/tone@prod\n"
    )
    assert answer(*HERE, "show", "acme/tone@prod")["version"]["metrics"] == {"accuracy": 0.5}
    assert run(*HERE, "mirror", "--from", "./there", "--aliases").stdout == ""
    run(*THERE, "revoke", "acme/tone@1", "--reason", "it leaks")
    assert answer(*HERE, "mirror", "--from", "./there")["updated"] == ["acme/tone@1"]


def test_a_dry_run_of_a_mirror_creates_no_registry(run, tmp_path: Path) -> None:
    run("--registry", "./there", "push", "./out", "acme/tone")
    assert "copy acme/tone@1" in run("--registry", "./new", "mirror", "--from", "./there", "--dry-run").stdout
    assert not Path("new").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--follow",)])
def test_a_registry_does_not_mirror_itself_under_any_address(
    run, tmp_path: Path, more: tuple[str, ...]
) -> None:
    run("--registry", "./there", "push", "./out", "acme/tone")
    for place in ("./there", "./nested/../there"):
        Path("nested").mkdir(exist_ok=True)
        told = run("--registry", "./there", "mirror", "--from", place, *more, code=2).stderr
        assert "this registry itself" in told
    with running_server(ServerSettings(data=Path("there"))) as server:
        token = Path("token")
        token.write_text(server.token("m", "reader", ("*",)))
        words = ("mirror", "--from", server.url, "--from-token-file", str(token))
        assert "this registry itself" in run("--registry", "./there", *words, *more, code=2).stderr


def test_a_mirror_reads_the_token_for_its_source_from_a_file(run, tmp_path: Path) -> None:
    with running_server(ServerSettings(data=tmp_path / "served")) as server:
        (tmp_path / "token").write_text(f"{server.admin}\n")
        words = (*HERE, "mirror", "--from", server.url)
        assert "token" in run(*words, code=5).stderr
        assert "0 versions copied" in run(*words, "--from-token-file", "./token").stderr
    (tmp_path / "token").write_text("")
    assert "is empty" in run(*words, "--from-token-file", "./token", code=2).stderr


def test_a_mirror_makes_a_pause_between_rounds(run) -> None:
    run(*THERE, "create", "acme/tone")
    assert "--follow" in run(*HERE, "mirror", "--from", "./there", "--every", "0", code=2).stderr


def test_contradictory_mirror_options_are_a_usage_error(run) -> None:
    run(*THERE, "push", "./out", "acme/tone")
    words = (*HERE, "mirror", "--from", "./there")
    assert (
        "--base-files copies the weights of bases" in run(*words, "--no-bases", "--base-files", code=2).stderr
    )
    assert "pass only one of --every" in run(*words, "--every", "5m", "--dry-run", code=2).stderr
    assert "unknown field" in run(*words, "colour:red", code=2).stderr
    assert "no registry" in run(*HERE, "mirror", "--from", "./nowhere", code=3).stderr


def test_refusals_of_a_mirror_are_reported(run, base: Path) -> None:
    run(*THERE, "push", "./out", "acme/tone")
    tiny_base(base, hidden=8)
    run(*HERE, "base", "add", "./base", "--name", "org/tiny")
    assert "refused: acme/tone@1" in run(*HERE, "mirror", "--from", "./there", code=1).stderr


def test_a_whole_adapter_is_copied(run, answer) -> None:
    run(*THERE, "push", "./out", "acme/tone", "--metric", "accuracy=0.5")
    run(*THERE, "push", "./better", "acme/tone", "--alias", "prod")
    whole = ("copy", "acme/tone", "--to-registry", "./here", "--all-versions")
    assert answer(*THERE, *whole)["copied"] == ["acme/tone@1", "acme/tone@2"]
    assert answer(*HERE, "show", "acme/tone@1")["version"]["metrics"] == {"accuracy": 0.5}
    assert "takes no NAME" in run(*THERE, "copy", "acme/tone@1", *whole[2:], code=2).stderr


def test_a_bundle_is_made_shown_and_loaded(run, answer, base: Path) -> None:
    run(*THERE, "base", "add", "./base", "--name", "org/tiny", "--store")
    run(*THERE, "push", "./out", "acme/tone", "--alias", "prod")
    run(*THERE, "push", "./better", "acme/tone")
    made = run(*THERE, "bundle", "create", "acme/tone@prod", "acme/tone@2", "-o", "./x.bundle", "--with-base")
    assert made.stdout == "x.bundle\n"
    assert "2 versions, 1 base" in made.stderr
    shown = run("bundle", "show", "./x.bundle").stdout
    assert "acme/tone@1 sha256:" in shown and "(prod)" in shown and "base org/tiny with 2 files" in shown

    loaded = answer(*HERE, "bundle", "load", "./x.bundle", "--aliases")

    assert loaded["copied"] == ["acme/tone@1", "acme/tone@2"]
    assert answer(*HERE, "show", "acme/tone@prod")["version"]["base_status"] == "verified"
    assert (
        "exists; choose another name"
        in run(*THERE, "bundle", "create", "acme/tone", "-o", "./x.bundle", code=4).stderr
    )
    all_of_it = answer(*THERE, "bundle", "create", "acme/tone", "--all-versions", "-o", "./all.bundle")
    assert len(all_of_it["index"]["parcels"]) == 2
    found = answer(*THERE, "bundle", "create", "--query", "rank>=8", "-o", "./found.bundle")
    assert [one["number"] for one in found["index"]["parcels"]] == [2]


def test_a_file_that_is_not_a_bundle_is_refused(run, tmp_path: Path) -> None:
    (tmp_path / "x.bundle").write_bytes(b"not a bundle")
    assert "not a bundle" in run(*HERE, "bundle", "load", "./x.bundle", code=1).stderr
    assert "no file" in run(*HERE, "bundle", "load", "./gone.bundle", code=3).stderr
    run(*THERE, "push", "./out", "acme/tone")
    assert "name the versions" in run(*THERE, "bundle", "create", "-o", "./x.bundle", code=2).stderr
