"""Comparing versions on a page: the differences, whether they are significant, and who sees them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest
from tests.pages.browser import Browser
from tests.pages.sample_registry import LEGAL, SQL, TONE

from adaptry.core.digest import Digest
from adaptry.core.evidence.values import Direction
from adaptry.core.refs import AdapterName
from adaptry.registry.evidence import EvidenceInfo
from adaptry_api.pages.metric_comparison import compare_metrics, intervals_of
from adaptry_api.testing import Server


def measured(value: float, stderr: float | None = None, direction: Direction = "higher") -> EvidenceInfo:
    return EvidenceInfo(
        id=1,
        name=AdapterName.parse("acme/tone"),
        number=1,
        subject=Digest.of(b"x"),
        metric="acc",
        value=value,
        stderr=stderr,
        direction=direction,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        by="tess",
    )


@pytest.mark.parametrize(
    ("first", "other", "verdict"),
    [
        (measured(0.80, 0.01), measured(0.90, 0.01), "better"),
        (measured(0.90, 0.01), measured(0.80, 0.01), "worse"),
        (measured(0.90, 0.01, "lower"), measured(0.80, 0.01, "lower"), "better"),
        (measured(0.80, 0.03), measured(0.85, 0.03), "within_error"),  # 1.18 standard errors
        (measured(0.80, 0.01), measured(0.8278, 0.01), "better"),  # 1.966
        (measured(0.80, 0.01), measured(0.8276, 0.01), "within_error"),  # 1.952
        (measured(0.80), measured(0.95, 0.01), "unknown_error"),
        (measured(0.80), measured(0.80), "same"),
        (measured(0.80, 0.01, "unknown"), measured(0.90, 0.01, "unknown"), "differs"),
        (measured(0.80, 0.0), measured(0.90, 0.0), "better"),
    ],
)
def test_a_difference_is_real_if_it_exceeds_its_own_error(
    first: EvidenceInfo, other: EvidenceInfo, verdict: str
) -> None:
    (row,) = compare_metrics([[first], [other]])
    assert row.cells[1].verdict == verdict
    assert row.cells[0].verdict is None


@pytest.mark.parametrize(
    ("first", "other", "differences"),
    [
        ({"settings": "0-shot"}, {"settings": "5-shot"}, ("settings: 5-shot, not 0-shot",)),
        ({"n": 10}, {"n": 1319}, ("number of documents: 1,319, not 10",)),
        ({"task_version": "2"}, {"task_version": "3"}, ("version of the task: 3, not 2",)),
        (
            {"format": "lm-eval"},
            {"format": "lm-eval", "chat_template": "cafe"},
            ("chat template: cafe, not none",),
        ),
        ({"direction": "lower"}, {}, ("direction: higher, not lower",)),
        ({}, {"settings": "5-shot", "n": 10, "task_hash": "9497", "chat_template": "cafe"}, ()),
    ],
)
def test_values_that_were_measured_differently_are_not_better(
    first: dict[str, object], other: dict[str, object], differences: tuple[str, ...]
) -> None:
    before, now = measured(0.5, 0.01).model_copy(update=first), measured(0.9, 0.01).model_copy(update=other)
    (row,) = compare_metrics([[before], [now]])
    assert row.cells[1].differences == differences
    assert row.cells[1].verdict == ("measured_differently" if differences else "better")


def test_the_newest_value_that_was_not_withdrawn_counts() -> None:
    gone = measured(0.99).model_copy(
        update={"withdrawn": {"at": datetime(2026, 1, 1, tzinfo=UTC), "by": "x", "reason": "wrong"}}
    )
    (row,) = compare_metrics([[gone, measured(0.7), measured(0.6)], []])
    assert row.cells[0].evidence
    assert row.cells[0].evidence.value == 0.7
    assert row.cells[1].evidence is None


def test_intervals_lie_inside_the_drawing_and_in_the_order_of_the_values() -> None:
    (row,) = compare_metrics([[measured(0.8, 0.02)], [measured(0.7, 0.01)], []])
    first, second, third = intervals_of(row)
    assert first
    assert second
    assert third is None
    assert 0 <= second.low < second.x < first.x < first.high <= 180


def test_the_page_shows_the_differences_and_its_json_equals_them(team: Server) -> None:
    address = f"/-/compare?ref={TONE}@5&ref={TONE}@prod&ref={SQL}@1"
    browser = Browser(team)
    page = browser.get(f"{address}&format=json").json
    assert [one["version"]["number"] for one in page["versions"]] == [5, 4, 1]
    rows = {row["what"]: row["values"] for row in page["spec"] + page["config"]}
    assert rows["r"] == ["16", "16", "4"]
    assert rows["traits"] == ["rslora", "", ""]
    text = browser.get(address).body.decode()
    for what in (*rows, "within the error", "Show norms, distances and spectra"):
        assert what in text, what


def test_fewer_than_two_versions_are_asked_for_more_and_more_than_six_are_refused(team: Server) -> None:
    browser = Browser(team)
    assert "Choose two or more versions" in browser.get("/-/compare").body.decode()
    assert "Choose two or more versions" in browser.get(f"/-/compare?ref={TONE}@5&ref=").body.decode()
    assert browser.get("/-/compare?" + "&".join([f"ref={TONE}@5"] * 7)).status == 400
    assert browser.get("/-/compare?ref=nonsense").status == 400


def test_versions_whose_files_are_withheld_are_compared_without_their_configs(team: Server) -> None:
    reader = Browser(team, team.token("rita", "viewer", ("acme",)))
    answer = reader.get(f"/-/compare?ref={TONE}@3&ref={TONE}@4")
    assert answer.status == 200
    assert "are withheld" in answer.body.decode()


def test_a_reader_of_one_namespace_compares_nothing_of_another(team: Server) -> None:
    reader = Browser(team, team.token("rolf", "viewer", ("acme",)))
    hidden = reader.get(f"/-/compare?ref={TONE}@4&ref={LEGAL}@1")
    absent = reader.get(f"/-/compare?ref={TONE}@4&ref=research/nothing@1")
    assert hidden.status == absent.status == 404
    names = (str(LEGAL).encode(), b"research/nothing")
    assert f"no adapter {LEGAL}".encode() in hidden.body
    assert names[0] not in absent.body


def test_a_summary_counts_the_metrics_that_are_better_or_worse(team: Server) -> None:
    text = Browser(team).get(f"/-/compare?ref={TONE}@1&ref={TONE}@5").body.decode()
    assert "2 better" in text
    assert "error unknown" in text


def test_a_comparison_as_csv_has_a_column_for_each_version(team: Server) -> None:
    answer = Browser(team).get(f"/-/compare?ref={TONE}@4&ref={TONE}@5&format=csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert rows[0] == ["table", "what", f"{TONE}@4", f"{TONE}@5"]
    assert ["measured", "support_qa acc", "0.803", "0.821"] in rows
    assert ["config", "use_rslora", "false", "true"] in rows
