"""The fleet page: workers, rollouts, recalls with proof, and live updates."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import urllib3
from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import StateChange, VersionInfo
from adaptry.registry.workers import DroppedAdapter, ResidentReport, WorkerReport
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

TONE = AdapterName.parse("acme/tone")


def test_the_fleet_page_shows_workers_rollouts_and_open_recalls(team: Server) -> None:
    text = Browser(team).get("/-/fleet").body.decode()
    recalls = text[text.index('id="recalls"') : text.index('id="rollouts"')]
    assert "acme/support-tone@3" in recalls
    assert "waits for 2 workers" in recalls
    assert "may serve it" in recalls
    rollouts = text[text.index('id="rollouts"') : text.index('id="workers"')]
    assert "acme/sql-writer" in rollouts
    assert "10 % of workers" in rollouts
    for worker in ("gpu-1", "gpu-2", "gpu-3"):
        assert worker in text[text.index('id="workers"') :]


def test_the_fleet_as_csv_has_a_row_for_each_version_on_a_worker(team: Server) -> None:
    rows = list(csv.DictReader(io.StringIO(Browser(team).get("/-/fleet?format=csv").body.decode())))
    found = {(row["worker"], row["version"], row["condition"]) for row in rows}
    assert ("gpu-1", "acme/support-tone@4", "serving") in found
    assert ("gpu-3", "acme/sql-writer@1", "serving") in found


def test_the_fleet_of_a_reader_has_only_what_they_may_see(team: Server) -> None:
    stranger = Browser(team, team.token("sara", "viewer", ("research",)))
    page = stranger.get("/-/fleet?format=json").json
    assert page == {"workers": {"items": [], "next": None}, "recalls": [], "rollouts": []}


def test_a_fleet_without_workers_teaches_the_first_command(start: Callable[..., Server]) -> None:
    assert "adaptry follow" in Browser(start()).get("/-/fleet").body.decode()


@pytest.fixture
def recalled(start: Callable[..., Server], tmp_path: Path) -> tuple[Server, VersionInfo]:
    """A server with a revoked version that a worker serves."""
    server = start()
    registry = server.registry()
    version = push(registry, open_dir(tiny_lora(tmp_path / "tone")), TONE).version
    report(server, version, has_it=True)
    registry.versions.set_state(TONE, version.digest, StateChange(state="revoked", reason="it leaks"), 0)
    return server, version


def report(server: Server, version: VersionInfo, *, has_it: bool) -> None:
    """The worker's report that it serves the version, or its proof that it dropped it."""
    resident = ResidentReport(
        name=TONE, digest=version.digest, served_as="tone", condition="serving", since=version.created_at
    )
    server.registry().workers.report(
        WorkerReport(
            worker="gpu-1",
            engine="vllm",
            residents=(resident,) if has_it else (),
            dropped=() if has_it else (DroppedAdapter(name=TONE, digest=version.digest),),
        )
    )


@pytest.mark.slow
def test_the_stream_sends_the_part_again_when_a_recall_is_proved(
    recalled: tuple[Server, VersionInfo],
) -> None:
    server, version = recalled
    messages = follow(server, Browser(server))
    assert "waits for 1 worker" in next(messages)
    report(server, version, has_it=False)
    assert "no worker serves it" in next(messages)


@pytest.mark.slow
def test_the_stream_ends_with_the_session_and_a_link_to_sign_in(recalled: tuple[Server, VersionInfo]) -> None:
    server, _ = recalled
    secret = server.token("tess", "viewer", ("acme",))
    messages = follow(server, Browser(server, secret))
    next(messages)
    assert server.call("POST", "/api/v1/tokens/revoke", {"token": secret}, token=None).status == 202
    (last,) = messages
    assert "You are signed out" in last
    assert "gpu-1" not in last


def follow(server: Server, browser: Browser) -> Iterator[str]:
    """The data of each message of the stream."""
    pool = urllib3.PoolManager()
    headers = {"Cookie": browser.cookie or "", "Accept": "text/event-stream"}
    answer = pool.request("GET", f"{server.url}/-/fleet/live", headers=headers, preload_content=False)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    try:
        held = ""
        for piece in answer.stream(1 << 16):
            held += piece.decode()
            *whole, held = held.split("\n\n")
            yield from (one for one in whole if one.startswith("data: "))
    finally:
        answer.release_conn()
        pool.clear()
