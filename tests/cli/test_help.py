"""`--help`, suggestions for mistyped words, completion, and Ctrl-C."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from adaptry.core.access.actions import ACTIONS
from adaptry.registry.job_types.tasks import TASKS
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server
from adaptry_cli.examples import EXAMPLES
from adaptry_cli.help_pages import page_of
from adaptry_cli.interruption import INTERRUPTIONS, interruption_text
from adaptry_cli.main import COMMANDS as LISTED
from adaptry_cli.main import main
from adaptry_cli.reference import page

ROOT = Path(__file__).parents[2]


def every_command(
    command: click.Command = main, parent: click.Context | None = None, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command, click.Context]]:
    name = path[-1] if path else "adaptry"
    context = click.Context(command, parent=parent, info_name=name, **main.context_settings)
    if path:
        yield " ".join(path), command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from every_command(inner, context, (*path, name))


COMMANDS = list(every_command())
WITHOUT_JSON = {
    "demo": "a show",
    "follow": "it prints no result",
    "completion": "a script",
    "audit export": "its result is JSON",
    "open": "its result is one address",
}


def test_every_command_has_examples_that_parse_and_an_existing_page() -> None:
    assert {path for path, _, _ in COMMANDS} == EXAMPLES.keys(), "add examples in cli/adaptry_cli/examples.py"
    by_path = {path: command for path, command, _ in COMMANDS}
    for path, examples in EXAMPLES.items():
        assert (ROOT / page_of(path)).is_file()
        for example in examples:
            words = shlex.split(example.partition(" | ")[0])[1:]
            length = 2 if " ".join(words[:2]) in by_path else 1
            assert " ".join(words[:length]).startswith(path), example
            command = by_path[" ".join(words[:length])]
            # click caches a command's help option: without the program's settings, later tests would get the
            # wrong one.
            context = click.Context(command, **main.context_settings)
            _, extra, _ = command.make_parser(context).parse_args(words[length:])
            assert extra == [], example


def test_the_list_of_commands_equals_each_commands_help() -> None:
    lines = {name: line for section in LISTED.values() for name, (_, line) in section.items()}
    sentences = {path: command.get_short_help_str(200) for path, command, _ in COMMANDS if path in lines}

    assert lines == sentences, (
        "COMMANDS in cli/adaptry_cli/main.py has the first sentence of each command's docstring"
    )


def test_the_reference_page_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")

    assert written == page(), "run: python -m adaptry_cli.reference > docs/cli.md"


def test_help_has_no_ranges_in_the_notation_of_a_library() -> None:
    for _, command, context in COMMANDS:
        shown = command.get_help(context)
        assert not re.search(r"INTEGER|FLOAT|RANGE|x>=|<=x", shown.replace("FIELD<=NUMBER", "")), shown
        assert "\\n" not in shown and "\\t" not in shown


def test_the_list_of_a_group_has_whole_sentences() -> None:
    for path, command, context in COMMANDS:
        if isinstance(command, click.Group):
            listed = command.get_help(context).partition("Commands:")[2].partition("Examples:")[0]
            assert "..." not in listed, path


@pytest.mark.parametrize(
    ("path", "values"),
    [("jobs submit", TASKS), ("jobs schedule", ()), ("access explain", ACTIONS)],
    ids=["tasks", "schedule", "actions"],
)
def test_arguments_with_many_values_are_one_word_in_the_usage_and_listed_below(
    path: str, values: Iterable[str]
) -> None:
    shown = next(command.get_help(context) for each, command, context in COMMANDS if each == path)
    usage, _, text = shown.partition("\n\n")

    assert "|" not in usage
    words = set(re.findall(r"[\w.-]+\w", text))
    assert words >= set(values)


def test_every_command_that_prints_a_result_prints_json() -> None:
    without = {
        path
        for path, command, _ in COMMANDS
        if not isinstance(command, click.Group)
        and not any("--json" in parameter.opts for parameter in command.params)
    }

    assert without == WITHOUT_JSON.keys()


@pytest.mark.usefixtures("out")
def test_a_search_that_finds_nothing_names_the_method_that_was_meant(run) -> None:
    run("push", "./out", "acme/tone")

    def message(*query: str, code: int = 0) -> str:
        return run("search", *query, code=code).stderr.strip()

    assert "unknown method 'lorra'; did you mean lora" in message("method:lorra", code=2)
    assert "unknown state 'actve'; did you mean active?" in message("state:actve", code=2)
    assert run("search", "state:Active").stdout.startswith("version")
    assert "unknown state 'foo' (one of: active, deprecated" in message("state:foo", code=2)
    assert "unknown finding 'module_mising'; did you mean module_missing" in message(
        "-finding:module_mising", "rank>99", code=2
    )
    assert message("lora") == "no version matches; method:lora finds versions by their method"
    assert "dora is a trait of LoRAs, which trait:dora finds" in message("method:dora", code=2)
    assert message("dora") == "no version matches; trait:dora finds LoRAs with this trait"
    assert message("method:lo*", "rank>99") == "no version matches"


@pytest.mark.usefixtures("out")
def test_sorting_by_a_metric_that_no_version_has_is_reported(run, tmp_path) -> None:
    run("push", "./out", "acme/tone", "--metric", "accuracy=0.5")
    results = {
        "lm_eval_version": "0.4.13",
        "results": {"gsm8k": {"acc,none": 0.5}},
        "higher_is_better": {"gsm8k": {"acc": True}},
    }
    (tmp_path / "results_2026-11-28T10-00-00.1.json").write_text(json.dumps(results))
    run("evidence", "add", "acme/tone", str(tmp_path / "results_2026-11-28T10-00-00.1.json"))

    def message(sort: str) -> str:
        return run("search", "--sort", sort).stderr.strip()

    assert message("metric.acuracy") == (
        "none of these versions has metric.acuracy, so the newest come first; did you mean metric.accuracy?"
    )
    assert message("eval.gsm8k.f1") == "none of these versions has eval.gsm8k.f1, so the newest come first"
    assert [message(sort) for sort in ("metric.accuracy", "eval.gsm8k.acc", "name")] == [""] * 3


MISTYPED = {
    "serach tone": "no command 'serach'; did you mean search",
    "jobs sumbit": "no command 'sumbit'; did you mean submit?",
    "list": "no command 'list'; did you mean ls?",
    "token remove 7": "no command 'remove'; did you mean revoke?",
    "upload ./out": "no command 'upload'; did you mean push?",
    "derive tone": "no command 'derive' (see",
    "show acme/tnoe": "no adapter acme/tnoe; did you mean acme/tone?",
    "show amce/tone": "did you mean acme/tone?",
    "show acme/tone@prd": "did you mean acme/tone@prod?",
    "show acme/tone@7": "(the newest version is 1)",
    "diff ./out acme/tnoe": "did you mean acme/tone?",
    "base show org/tniy": "did you mean org/tiny?",
    "search bsae:org/tiny": "unknown field 'bsae' in 'bsae:org/tiny'; did you mean base",
    "search colour:red": "unknown field 'colour' in 'colour:red' (fields: name, namespace",
    "search accuracy>0.9": "a metric is written metric.accuracy",
    "search name=tone": "write name:tone",
    "check ./out --runtime vlm": "unknown engine 'vlm'; did you mean vllm?",
    "ls --sort donwloads": "did you mean downloads?",
}


@pytest.mark.usefixtures("out", "base")
def test_a_mistyped_word_gets_a_suggestion(run) -> None:
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone", "--alias", "prod")

    for words, says in MISTYPED.items():
        result = CliRunner().invoke(main, words.split())
        assert result.exit_code in (2, 3), words
        assert says in result.stderr, words
        assert len(result.stderr) < 400, "the grammar is in --help"


@pytest.mark.usefixtures("out")
def test_a_namespace_in_common_makes_no_suggestion(run) -> None:
    for name in ("acme/ptuning", "acme/kohya", "acme/ln", "team/unknown"):
        run("push", "./out", name)

    assert "did you mean" not in run("show", "acme/tone", code=3).stderr
    assert "; did you mean team/unknown?" in run("show", "acme/unknown", code=3).stderr


@pytest.mark.usefixtures("out")
def test_the_new_name_of_a_push_gets_no_suggestion(run) -> None:
    run("push", "./out", "acme/tone")

    assert "did you mean" not in run("push", "./nothere", "acme/tones", code=3).stderr


@pytest.mark.usefixtures("out")
def test_a_mistyped_method_gets_a_suggestion(run) -> None:
    pytest.importorskip("torch")

    refused = run("combine", "./out", "./out", "--method", "tise", "-o", "./both", code=2)

    assert "unknown method 'tise'; did you mean ties?" in refused.stderr


COMPLETED = {
    "adaptry show acme/": ["acme/tone"],
    "adaptry show acme/tone@": ["prod", "1"],
    "adaptry show acme/tone@p": ["prod"],
    "adaptry promote acme/tone --to p": ["prod"],
    "adaptry merge --base org/": ["org/tiny"],
    "adaptry combine --method dare_l": ["dare_linear"],
    "adaptry export acme/tone --for llama": ["llama.cpp"],
    "adaptry ls ac": ["acme/tone"],
    "adaptry search fin": ["finding:", "findings"],
    "adaptry search has:me": ["metric"],
    "adaptry search fits:vl": ["vllm"],
    "adaptry search tone --sort upd": ["updated"],
}


@pytest.mark.usefixtures("out", "base")
def test_names_of_the_registry_are_completed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are passed as by bash, which treats `@` as the end of a word and keeps the text before it."""
    run("base", "add", "./base", "--name", "org/tiny")
    run("push", "./out", "acme/tone", "--alias", "prod")
    monkeypatch.setenv("COMP_WORDBREAKS", " \t\n\"'><=;|&(:@")
    monkeypatch.setenv("_ADAPTRY_COMPLETE", "bash_complete")

    for typed, completed in COMPLETED.items():
        monkeypatch.setenv("COMP_LINE", typed)
        monkeypatch.setenv("COMP_POINT", str(len(typed)))
        assert run().stdout.splitlines() == [f"plain,{word}" for word in completed], typed


@pytest.mark.usefixtures("out")
def test_names_of_a_server_are_completed(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running_server(ServerSettings(data=tmp_path / "served")) as server:
        monkeypatch.setenv("ADAPTRY_URL", server.url)
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
        run("push", "./out", "acme/tone", "--alias", "prod")
        monkeypatch.setenv("_ADAPTRY_COMPLETE", "bash_complete")

        for typed in ("adaptry show acme/", "adaptry promote acme/tone --to p"):
            monkeypatch.setenv("COMP_LINE", typed)
            monkeypatch.setenv("COMP_POINT", str(len(typed)))
            assert run().stdout.splitlines() == [f"plain,{word}" for word in COMPLETED[typed]], typed


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_bash_script_is_valid(run) -> None:
    script = run("completion", "bash").stdout

    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "~/.bashrc" in run("completion", "--help").stdout


def test_completion_is_silent_if_the_registry_does_not_respond(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTRY_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("COMP_LINE", "adaptry show a")
    monkeypatch.setenv("COMP_POINT", "14")
    monkeypatch.setenv("_ADAPTRY_COMPLETE", "bash_complete")

    result = run()

    assert (result.stdout.strip(), result.stderr) == ("", "")


def test_ctrl_c_reports_unfinished_work(run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("push", "./out", "acme/tone")

    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adaptry_cli.pull.try_fast_pull", interrupted)
    result = run("pull", "acme/tone", "--to", "./there", code=130)

    assert "interrupted: there was not written" in result.stderr
    assert not Path("there").exists()
    known = {path for path, _, _ in COMMANDS}
    assert "nothing was changed" in interruption_text("ls", {})
    assert INTERRUPTIONS.keys() <= known


def test_every_folder_argument_must_begin_like_a_path(run, out: Path, base: Path) -> None:
    for words, folder in (
        ("push out acme/tone", "out"),
        ("base add base", "base"),
        ("base match base", "base"),
    ):
        assert f"write ./{folder} for the folder" in run(*words.split(), code=2).stderr
    assert "a folder is written ./DIR" in run("push", "nowhere", "acme/tone", code=2).stderr


def test_a_base_name_that_is_also_a_folder_shows_both_spellings(run, out: Path, base: Path) -> None:
    unknown = run("merge", "./out", "--base", "base", "-o", "merged", code=3).stderr
    ambiguous = run("check", "./out", "--base", "base", code=2).stderr

    assert "(the folder here is written ./base)" in unknown
    assert "write ./base for the folder here, or the id of a base in the registry" in ambiguous
