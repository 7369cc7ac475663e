"""Output: encodings without some characters, times, multi-line messages, shares."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from adaptry_cli.main import main
from adaptry_cli.output import escape_lines, format_share, print_out, progress
from adaptry_cli.times import format_exact, format_relative

pytestmark = pytest.mark.usefixtures("out")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_results_printed_beside_progress_bars_go_to_the_file_that_stdout_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An example is `adaptry import ./runs --to acme > versions.txt` in a terminal."""
    monkeypatch.setattr(sys, "stderr", Terminal())

    with progress() as bars:
        bars("hashing", 0, 10)
        print_out("acme/tone@1")

    assert capsys.readouterr().out == "acme/tone@1\n"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_an_encoding_without_some_characters_causes_no_crash(
    run, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("push", "./out", "acme/tone", "--description", "répond en français → 日本語")
    runner = CliRunner(charset=encoding)

    for words in (
        ["show", "acme/tone"],
        ["ls"],
        ["push", "--help"],
        ["search", "--help"],
        ["check", "./out"],
    ):
        result = runner.invoke(main, words)
        assert result.exit_code == 0, result.output
        assert result.stdout_bytes.decode(encoding)
    shown = runner.invoke(main, ["show", "acme/tone"]).stdout_bytes.decode(encoding)
    assert "->" in shown and "\\u65e5" in shown
    as_json = json.loads(runner.invoke(main, ["show", "acme/tone", "--json"]).stdout_bytes.decode(encoding))
    assert as_json["adapter"]["description"] == "répond en français → 日本語"


def test_a_redirected_windows_console_gets_complete_output(run, tmp_path: Path) -> None:
    """The command runs as a program, since Python must open the streams itself."""
    done = subprocess.run(
        [sys.executable, "-m", "adaptry_cli", "check", "./out"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "  -> register it: adaptry base add" in done.stdout.decode("cp1252")


def test_later_lines_of_a_message_are_indented() -> None:
    assert escape_lines("first\nerror: forged\n\tindented") == "first\n  error: forged\n    indented"
    assert escape_lines("\x1b[31mred") == "\\x1b[31mred"


def test_times_are_relative_for_people_and_exact_with_their_zone_for_files(run) -> None:
    now = datetime(2026, 11, 28, 10, 0, tzinfo=UTC)

    shown = [format_relative(now - span, now) for span in map(timedelta, (0, 1, 3, 800))]
    assert shown == ["just now", "1 day ago", "3 days ago", "2 years ago"]
    assert format_relative(now - timedelta(minutes=90), now) == "1 h ago"
    assert format_relative(now + timedelta(days=89), now) == "in 2 months"
    assert datetime.fromisoformat(format_exact(now)) == now
    run("push", "./out", "acme/tone")
    when = run("history", "acme/tone").stdout.splitlines()[1][:25]
    assert datetime.fromisoformat(when).tzinfo is not None


def test_exact_times_are_shown_on_a_terminal_on_request(run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("push", "./out", "acme/tone")
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True)

    assert "just now" in run("show", "acme/tone").stdout
    assert "just now" not in run("show", "acme/tone", "--exact-times").stdout
    monkeypatch.setenv("ADAPTRY_EXACT_TIMES", "1")
    assert "just now" not in run("show", "acme/tone").stdout


def test_a_share_shows_100_or_0_percent_only_if_exact() -> None:
    shares = [0.849, 1.0, 0.9999999, 0.99991, 0.0, 0.00002]

    assert list(map(format_share, shares)) == [
        "84.9 %",
        "100 %",
        "almost 100 %",
        "99.991 %",
        "0 %",
        "0.002 %",
    ]
