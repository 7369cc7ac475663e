"""The weights of a comparison in a real browser: requested, computed by a runner, and shown
without a reload.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.pages.weight_scene import TRANSLATOR, WEIGHTS, push_translators

from adaptry.testing.runners import RunnerProcess
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from adaptry.testing.postgres import PostgresServer

pytest.importorskip("playwright", reason="Playwright is not installed")
from tests.pages.chromium import AXE, chromium, chromium_path, serious_faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_path() is None, reason="Chromium is not installed (apt-get install chromium)"
    ),
]
LOOKS = ((360, "light"), (768, "dark"), (1440, "light"), (1440, "dark"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(params=["embedded", "postgres"])
def catalog(request: pytest.FixtureRequest) -> str | None:
    """The database of the server: in its folder, or on PostgreSQL."""
    if request.param == "embedded":
        return None
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return postgres.database()


@pytest.fixture
def server(catalog: str | None, tmp_path: Path) -> Iterator[Server]:
    settings = ServerSettings(data=tmp_path / "data", catalog=catalog)
    with ExitStack() as at_the_end, running_server(settings, at_the_end.callback) as started:
        push_translators(started.registry(), tmp_path)
        yield started


def opened(browser: Browser, server: Server, **options: Any) -> Any:
    """A page of a signed-in user. (`Any`: a Playwright page.)"""
    page = browser.new_context(viewport={"width": 1440, "height": 900}, **options).new_page()
    page.goto(f"{server.url}/-/sign-in")
    page.get_by_label("Token").fill(server.admin)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/")
    return page


def test_figures_requested_on_the_page_appear_when_the_job_is_done(
    browser: Browser, server: Server, catalog: str | None
) -> None:
    page = opened(browser, server, reduced_motion="reduce")
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: asked.append(sent.url))
    page.goto(server.url + WEIGHTS)
    page.get_by_role("heading", name="Weights", exact=True).scroll_into_view_if_needed()
    page.get_by_role("button", name="Compute as a job").focus()
    page.keyboard.press("Enter")
    page.get_by_text("the figures appear here").wait_for()
    environ = {"ADAPTRY_CATALOG": catalog} if catalog else {}
    assert RunnerProcess(server.data, "--once", environ=environ).wait() == 0
    page.get_by_role("heading", name="Singular values and effective rank").wait_for()
    # The heading appears when one version is measured, the distances when both are.
    page.get_by_role("img", name=f"Distances of {TRANSLATOR}@2").wait_for()
    page.get_by_text("As a table: Distances").focus()
    page.keyboard.press("Enter")
    table = page.get_by_role("region", name=f"Distances of {TRANSLATOR}@2, table")
    assert table.get_by_role("row").count() == 17
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(is_wider), (width, scheme)
        if AXE.exists():
            assert serious_faults(page) == [], (width, scheme)
    assert said == []
    assert [url for url in asked if not url.startswith((server.url, "data:"))] == []
    page.context.close()


def test_without_scripts_the_part_is_a_link(browser: Browser, server: Server) -> None:
    page = opened(browser, server, java_script_enabled=False)
    page.goto(server.url + WEIGHTS)
    page.get_by_role("link", name="Show norms, distances and spectra").click()
    page.get_by_role("button", name="Compute as a job").click()
    page.wait_for_url("**#weights")
    assert server.registry().jobs.list().items[0].kind == "weight-statistics"
    page.context.close()


def test_the_part_takes_few_bytes_and_one_request(browser: Browser, server: Server) -> None:
    page = opened(browser, server)
    sizes: dict[str, int] = {}
    page.on("response", lambda answer: sizes.__setitem__(answer.url, len(answer.body())))
    page.goto(server.url + WEIGHTS, wait_until="networkidle")
    page.get_by_role("heading", name="Weights", exact=True).scroll_into_view_if_needed()
    page.get_by_role("button", name="Compute as a job").wait_for()
    assert len(sizes) <= 10, sizes
    assert sum(sizes.values()) < 200_000, sizes
    page.context.close()
