"""The pages of jobs: the list, a job with its log, cancelling and retrying, and their streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import urllib3
from tests.pages.browser import Browser

from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.storage.catalog import jobs
from adaptry_api.testing import Server

JOBS = "/-/jobs"


@pytest.fixture
def server(start: Callable[..., Server]) -> Server:
    return start()


def submit(server: Server, to: str = "acme/both") -> JobInfo:
    task = {"inputs": ["acme/tone@1=0.7", "acme/style@1=0.3"], "method": "ties", "to": to}
    return server.registry().jobs.submit(JobOrder(kind="combine", task=task))


def test_a_job_is_listed_by_state_and_shown_with_its_task(server: Server) -> None:
    job, browser = submit(server), Browser(server)
    assert job.id in browser.get(JOBS).body.decode()
    assert job.id in browser.get(f"{JOBS}?state=queued").body.decode()
    assert job.id not in browser.get(f"{JOBS}?state=done").body.decode()
    assert "no runner reports" in browser.get(JOBS).body.decode()
    text = browser.get(f"{JOBS}/{job.id}").body.decode()
    assert "acme/tone@1=0.7, acme/style@1=0.3" in text
    assert "waits for a runner" in text
    assert browser.get(f"{JOBS}/{job.id}?format=json").json["job"]["id"] == job.id
    assert browser.get(f"{JOBS}?format=csv").body.decode().count(job.id) == 1
    assert browser.get(f"{JOBS}?state=lost").status == 400
    assert browser.get(f"{JOBS}/job-none").status == 404


def test_a_job_is_cancelled_after_confirmation_and_retried(server: Server) -> None:
    job, browser = submit(server), Browser(server)
    here = f"{JOBS}/{job.id}"
    assert "Cancel this job?" in browser.get(f"{here}?confirm=cancel").body.decode()
    assert browser.get(f"{here}?format=json").json["job"]["state"] == "queued"
    assert browser.post(here, {"do": "cancel"}).status == 303
    assert browser.get(f"{here}?format=json").json["job"]["state"] == "cancelled"
    assert "Cancel this job?" not in browser.get(f"{here}?confirm=cancel").body.decode()
    assert browser.post(here, {"do": "retry"}).status == 303
    again = browser.post(here, {"do": "retry"})
    assert again.status == 409
    assert "only failed and cancelled jobs" in again.body.decode()
    assert browser.post(here, {"do": "explode"}).status == 400


def test_a_colleague_submits_a_failed_job_again_as_their_own(server: Server) -> None:
    job = submit(server)
    colleague = Browser(server, server.token("tom", "contributor", ("acme",)))
    here = f"{JOBS}/{job.id}"
    assert "root can retry it" in colleague.get(f"{here}?confirm=cancel").body.decode()
    assert colleague.post(here, {"do": "cancel"}).status == 303
    text = colleague.get(here).body.decode()
    assert "Retry" not in text
    assert "Submit as my own job" in text
    assert colleague.post(here, {"do": "retry"}).status == 403

    answer = colleague.post(here, {"do": "submit"})

    assert answer.status == 303
    own = server.registry().jobs.get(answer.headers["Location"].rpartition("/")[2])
    assert (own.submitted_by, own.task, own.needs) == ("tom", job.task, job.needs)
    assert server.registry().jobs.get(job.id).state == "cancelled"


def test_others_see_no_job_of_a_namespace_and_a_viewer_cancels_none(server: Server) -> None:
    job = submit(server)
    stranger = Browser(server, server.token("sara", "viewer", ("research",)))
    viewer = Browser(server, server.token("tom", "viewer", ("acme",)))
    assert stranger.get(f"{JOBS}?format=json").json["jobs"]["items"] == []
    for part in ("", "/log", "/live"):
        answer = stranger.get(f"{JOBS}/{job.id}{part}") if part != "/live" else None
        assert answer is None or answer.status == 404
    assert "Cancel the job" not in viewer.get(f"{JOBS}/{job.id}").body.decode()
    assert viewer.post(f"{JOBS}/{job.id}", {"do": "cancel"}).status == 403
    assert stranger.post(f"{JOBS}/{job.id}", {"do": "cancel"}).status == 404
    forged = Browser(server).post(f"{JOBS}/{job.id}", {"do": "cancel"}, Origin="https://evil.example")
    assert forged.status == 403
    assert server.registry().jobs.get(job.id).state == "queued"


def test_a_long_log_shows_its_end_and_is_whole_as_text(server: Server) -> None:
    job, browser = submit(server), Browser(server)
    log(server, job, [f"line {number}" for number in range(450)])
    text = browser.get(f"{JOBS}/{job.id}").body.decode()
    assert "the last 200 lines" in text
    assert "line 449" in text
    assert "line 249\n" not in text
    whole = browser.get(f"{JOBS}/{job.id}/log")
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert [line.split(" ", 2)[-1].split()[-1] for line in whole.body.decode().splitlines()] == [
        str(number) for number in range(450)
    ]


def test_a_log_runs_no_markup(server: Server) -> None:
    job = submit(server)
    log(server, job, ["<script>alert(1)</script>\u202e"])
    text = Browser(server).get(f"{JOBS}/{job.id}").body.decode()
    assert "<script>alert" not in text
    assert "\u202e" not in text


@pytest.mark.slow
def test_the_stream_of_a_job_sends_new_lines_and_ends_with_the_job(server: Server) -> None:
    job = submit(server)
    messages = follow(server, Browser(server), f"{JOBS}/{job.id}/live")
    assert "waits for a runner" in next(messages)
    log(server, job, ["reading acme/tone"])
    assert "reading acme/tone" in next(messages)
    server.registry().jobs.cancel(job.id)
    assert "cancelled" in next(messages)
    assert next(messages) == "event: over\ndata: over"
    assert list(messages) == []


@pytest.mark.slow
def test_the_stream_of_the_list_follows_new_jobs(server: Server) -> None:
    messages = follow(server, Browser(server), f"{JOBS}/live")
    assert "No job" in next(messages)
    job = submit(server)
    assert job.id in next(messages)


def log(server: Server, job: JobInfo, lines: list[str]) -> None:
    """Adds lines to the log, as a runner does."""
    with server.catalog.write() as tx:
        jobs.append_log(tx, job.id, "start", lines, job.submitted_at)


def follow(server: Server, browser: Browser, address: str) -> Iterator[str]:
    """The messages of a stream."""
    pool = urllib3.PoolManager()
    headers = {"Cookie": browser.cookie or "", "Accept": "text/event-stream"}
    answer = pool.request("GET", server.url + address, headers=headers, preload_content=False)
    try:
        held = ""
        for piece in answer.stream(1 << 16):
            held += piece.decode()
            *whole, held = held.split("\n\n")
            yield from (one for one in whole if one.startswith(("data: ", "event: ")))
    finally:
        answer.release_conn()
        pool.clear()
