"""`adaptry events`: past and new events, as lines for people or programs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTIBLE = """
import signal
from adaptry_cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the tests run in the background
main()
"""

pytestmark = pytest.mark.usefixtures("out")


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_all_events_are_shown_from_the_beginning(run) -> None:
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("create", "other/tone")
    told = lines(run("events", "--json").stdout)
    assert [event["kind"] for event in told if event["name"] == "acme/tone"][-2:] == [
        "version.pushed",
        "alias.moved",
    ]
    assert [event["seq"] for event in told] == sorted(event["seq"] for event in told)
    shown = run("events").stdout.splitlines()
    assert len(shown) == len(told)
    assert any("acme/tone@1" in line and "prod to 1" in line for line in shown)


def test_events_begin_after_the_given_number_and_are_filtered(run) -> None:
    for name in ("acme/tone", "acme/voice", "other/tone"):
        run("create", name)
    told = lines(run("events", "--json").stdout)
    assert lines(run("events", "--after", str(told[0]["seq"]), "--json").stdout) == told[1:]
    some = lines(run("events", "--adapter", "*/voice", "--adapter", "other/*", "--json").stdout)
    assert [event["name"] for event in some] == ["acme/voice", "other/tone"]
    assert run("events", "--after", "9999").stdout == ""


def test_follow_prints_events_of_other_processes_until_interrupted(run, home: Path) -> None:
    run("create", "acme/tone")
    command = [sys.executable, "-c", INTERRUPTIBLE, "events", "--follow", "--after", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["name"] == "acme/tone"
        run("create", "acme/voice")
        assert json.loads(process.stdout.readline())["name"] == "acme/voice"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
