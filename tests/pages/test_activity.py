"""The activity page: the audit log for those who may read it, and the visible events for others."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable

from tests.pages.browser import Browser

from adaptry_api.testing import Server, until


def test_an_administrator_filters_the_audit_log(team: Server) -> None:
    browser = Browser(team)
    page = browser.get("/-/activity?action=alias.move&resource=acme/support-tone@prod&format=json").json
    entries = page["entries"]["items"]
    assert len(entries) == 3
    assert {entry["action"] for entry in entries} == {"alias.move"}
    text = browser.get("/-/activity?action=alias.move").body.decode()
    assert "<option selected>alias.move</option>" in text


def test_filtered_entries_are_downloaded_as_csv(team: Server) -> None:
    browser = Browser(team)
    text = browser.get("/-/activity?action=alias.move&resource=acme/support-tone@prod").body.decode()
    link = html.unescape(re.findall(r'href="([^"]*format=csv)"', text)[0])
    rows = list(csv.DictReader(io.StringIO(browser.get(link).body.decode())))
    assert [row["action"] for row in rows] == ["alias.move"] * 3
    assert {row["actor"] for row in rows} == {"root"}


def test_a_refused_sign_in_is_in_the_log(start: Callable[..., Server]) -> None:
    server = start()  # a separate server: a shared one may have recorded its maximum of denials per minute
    Browser(server, None).post("/-/sign-in", {"token": "adr_pat_wrong"})
    denied = "/-/activity?outcome=denied&format=json"
    until(
        lambda: Browser(server).get(denied).json["entries"]["items"],
        lambda found: any("not a complete adaptry token" in (entry["reason"] or "") for entry in found),
    )


def test_others_see_only_their_events_and_no_audit_entries(team: Server) -> None:
    reader = Browser(team, team.token("rita", "viewer", ("research",)))
    page = reader.get("/-/activity?format=json").json
    assert page["entries"] is None
    assert {event["name"] for event in page["events"]} == {"research/legal-summaries"}
    assert "acme" not in reader.get("/-/activity").body.decode()


def test_a_malformed_filter_is_explained(team: Server) -> None:
    browser = Browser(team)
    for query in ("since=yesterday", "action=fly", "outcome=maybe"):
        assert browser.get(f"/-/activity?{query}").status == 400, query
