"""Tables at the width of a terminal: numbers are never cut, and omitted columns are named."""

from __future__ import annotations

import re

import pytest

from adaptry_cli.tables import lay_out, print_facts, print_table, shorten, table_lines, wrap

COLUMNS = ("version", "aliases", "metrics", "rank", "modules", "base")
ROWS = [
    ("acme/tone@12", "prod, staging", "accuracy 0.9312, loss 0.21", "8", "q_proj, v_proj", "org/a-model-7b"),
    ("acme/tone@11", "", "accuracy 0.91", "16", "q_proj, k_proj, v_proj, o_proj", "org/a-model-7b"),
]
CUT = ("aliases", "metrics", "modules", "base")
DROP = ("modules", "base", "rank", "metrics", "aliases")


class Terminal:
    """Stands in for a terminal: only its width determines the layout of a table."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, width: int, **environ: str) -> None:
        for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(width), **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)


@pytest.mark.parametrize("width", range(40, 201, 8))
def test_a_table_fits_the_terminal_and_never_truncates_numbers(width: int) -> None:
    layout = lay_out(COLUMNS, ROWS, width, cut=CUT, drop=DROP)
    lines = table_lines(COLUMNS, ROWS, layout, right=("rank",))

    assert max(map(len, lines)) <= width
    true = set(re.findall(r"[\d.]+\d", " ".join(cell for row in ROWS for cell in row)))
    assert set(re.findall(r"[\d.]+\d", " ".join(lines))) <= true
    assert all(row[0] in line for row, line in zip(ROWS, lines[1:], strict=True)), "the version is never cut"
    assert {COLUMNS[number] for number in layout.dropped} <= set(DROP)


def test_a_wide_terminal_and_a_pipe_get_every_column_in_full() -> None:
    for width in (200, None):
        layout = lay_out(COLUMNS, ROWS, width, cut=CUT, drop=DROP)
        assert layout.dropped == ()
        assert "…" not in "".join(table_lines(COLUMNS, ROWS, layout))


def test_a_number_is_never_cut_in_two() -> None:
    assert shorten("accuracy 0.9312, loss 0.21", 18) == "accuracy 0.9312,…"
    assert shorten("accuracy 0.9312", 12) == "accuracy…"
    assert shorten("HuggingFaceTB/SmolLM2", 15) == "HuggingFaceTB/…"
    assert shorten("日本語のアダプタ", 9) == "日本語の…", "wide characters count twice"


def test_columns_that_do_not_fit_are_named(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    Terminal(monkeypatch, 40)

    print_table(COLUMNS, ROWS, cut=CUT, drop=DROP)

    assert "left out to fit 40 characters:" in capsys.readouterr().err


def test_facts_wrap_below_themselves_and_a_long_word_stays_whole(
    capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    Terminal(monkeypatch, 50, NO_COLOR="1")
    digest = "sha256:" + "0" * 64

    print_facts(
        [("findings", "blocks: q_proj wants inputs of 32 and gets 16\n  → another base"), ("id", digest)]
    )

    assert capsys.readouterr().out.splitlines() == [
        "findings  blocks: q_proj wants inputs of 32 and",
        "            gets 16",
        "            → another base",
        f"id        {digest}",
    ]
    assert wrap("  → one two three", 12) == ["  → one two", "    three"]
    assert wrap("blocks: one two three", 15) == ["blocks: one two", "  three"]


@pytest.mark.parametrize(
    ("environ", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False), ({"TERM": "xterm"}, True)],
    ids=str,
)
def test_colours_mark_what_needs_attention_and_can_be_switched_off(
    capsys, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], is_coloured: bool
) -> None:
    Terminal(monkeypatch, 80, **environ)

    print_table(("version", "state"), [("acme/tone@1", "revoked"), ("acme/tone@2", "deprecated")])

    shown = capsys.readouterr().out
    assert ("\x1b[31mrevoked" in shown) is is_coloured
    assert ("\x1b[33mdeprecated" in shown) is is_coloured
    assert ("\x1b" in shown) is is_coloured
