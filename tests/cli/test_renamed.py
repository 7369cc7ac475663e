"""Renamed options and commands: the former names still work, and only the current ones are shown."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from adaptry_cli.main import main
from adaptry_cli.renamed_option import RenamedOption

RENAMED = [  # each command, with the current and former names of its option
    ("member accountable", "--clear", "--nobody"),
    ("alias set", "--expect", "--only-from", "--was"),
    ("promote", "--expect", "--only-from", "--was"),
    ("similar", "--min-cosine", "--above"),
    ("lineage", "--descendants", "--down"),
    ("audit verify", "--checkpoint", "--older"),
    ("grant ls", "--principal", "--of"),
    ("serve", "--shutdown-delay", "--notice"),
    ("serve", "--mirror-ttl", "--mirror-age"),
    ("serve", "--upload-spool", "--spools"),
]
EACH_RENAMED = pytest.mark.parametrize(
    ("path", "name", "formers"), [(path, name, former) for path, name, *former in RENAMED]
)


def renamed_option(path: str, name: str) -> tuple[click.Command, RenamedOption]:
    command: click.Command = main
    for word in path.split():
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    (option,) = [each for each in command.params if name in each.opts]
    assert isinstance(option, RenamedOption)
    return command, option


@EACH_RENAMED
def test_all_names_of_a_renamed_option_set_the_same_value(path: str, name: str, formers: list[str]) -> None:
    command, option = renamed_option(path, name)
    value = [] if option.is_flag else ["1"]
    parser = command.make_parser(click.Context(command, help_option_names=["-h", "--help"]))

    present, *former = (parser.parse_args([each, *value])[0] for each in (name, *formers))

    assert former and all(each == present for each in former)
    assert present[option.name] not in (None, False)


@EACH_RENAMED
def test_help_and_completion_omit_the_former_names_of_an_option(
    run, path: str, name: str, formers: list[str]
) -> None:
    shown = run(*path.split(), "--help").stdout
    completed = [
        item.value for item in ShellComplete(main, {}, "adaptry", "_X").get_completions(path.split(), "--")
    ]

    assert f"{name} " in shown
    assert name in completed
    for each in formers:
        assert f"{each} " not in shown
        assert each not in completed


def test_an_alias_moves_by_the_former_names_of_an_option(run, out: Path, better: Path) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", "./better", "acme/tone")
    run("promote", "acme/tone@2", "--was", "2", code=4)
    run("promote", "acme/tone@2", "--only-from", "2", code=4)
    run("promote", "acme/tone@2", "--was", "1")
    run("promote", "acme/tone@1", "--only-from", "2")


@pytest.mark.parametrize("name", ["ADAPTRY_UPLOAD_SPOOL", "ADAPTRY_SPOOLS"])
def test_the_upload_spool_is_set_by_both_names_of_its_variable(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    serve, _ = renamed_option("serve", "--upload-spool")
    with serve.make_context("serve", []) as context:
        assert context.params["upload_spool"] == tmp_path


def test_mend_is_the_former_name_of_repair(run, out: Path) -> None:
    run("push", "./out", "acme/tone")
    assert "nothing to repair" in run("mend").stderr
    assert "Usage: adaptry repair" in run("mend", "--help").stdout
    assert " mend " not in run("--help").stdout
