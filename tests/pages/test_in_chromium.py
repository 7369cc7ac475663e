"""The pages in a real browser: signing in, keys, live updates, widths, light and dark, accessibility.

Skipped where Chromium, Playwright or axe-core is not installed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.pages.sample_registry import BASE, TONE

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.access import TokenRequest
from adaptry.registry.job_types.records import JobOrder
from adaptry.registry.records import AdapterEdit, PushOptions
from adaptry.registry.workers import ResidentReport, WorkerReport
from adaptry.storage import tokens
from adaptry.storage.catalog import jobs
from adaptry.testing.samples import tiny_lora
from adaptry_api.sign_in_link import create_sign_in_code
from adaptry_api.testing import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytest.importorskip("playwright", reason="Playwright is not installed")
from playwright.sync_api import expect
from tests.pages.chromium import AXE, chromium, chromium_path, new_page, serious_faults, wait_for_heading

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_path() is None, reason="Chromium is not installed (apt-get install chromium)"
    ),
]
ADDRESSES = (
    "/",
    "/?q=colour:red",
    f"/{TONE}",
    f"/{TONE}?version=3",
    f"/-/compare?ref={TONE}@5&ref={TONE}@prod&ref={TONE}@2",
    f"/-/adapters/{TONE}/5/promote",
    f"/-/aliases/{TONE}/prod",
    f"/-/aliases/{TONE}/prod/rollback",
    f"/-/base?key={BASE}",
    "/-/fleet",
    "/-/activity",
    "/-/jobs",
    f"/-/compare/weights?ref={TONE}@4&ref={TONE}@2",
    f"/-/adapters/{TONE}/4/fit",
    f"/-/adapters/{TONE}/4/lineage",
    f"/-/base/copies?key={BASE}",
    "/-/facets?q=method:lora",
    f"/-/combine?ref={TONE}@4&weight=0.7&ref={TONE}@5&weight=0.3&method=ties",
    "/-/settings",
    "/-/settings/tokens",
    "/-/settings/users",
    "/-/settings/groups",
    "/-/settings/groups?of=release",
    "/-/settings/issuers",
    "/-/settings/limits",
    "/-/settings/namespaces/acme/members?confirm=remove&who=tom",
    "/-/settings/namespaces/acme/service-accounts",
    "/-/settings/namespaces/acme/policies",
    "/-/settings/namespaces/acme/webhooks",
    "/-/settings/namespaces/acme/webhooks/1",
    "/-/settings/namespaces/acme/limits",
    f"/-/settings/adapters/{TONE}/policies?history=prod",
    f"/-/settings/adapters/{TONE}/publishers",
    "/acme/none",
    "/acme/none/at/all",
    "/-/sign-in",
)
LOOKS = ((320, "light"), (768, "dark"), (1440, "light"), (1440, "dark"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(params=["embedded", "postgres"])
def team(request: pytest.FixtureRequest) -> Server:
    """The sample registry, once embedded and once on PostgreSQL."""
    name = "team_on_postgres" if request.param == "postgres" else "embedded_team"
    server: Server = request.getfixturevalue(name)
    return server


@pytest.fixture
def page(browser: Browser, team: Server) -> Iterator[Page]:
    """A page of a signed-in user, which must log nothing and send no request to another host."""
    with new_page(browser, viewport={"width": 1440, "height": 900}, reduced_motion="reduce") as opened:
        said: list[str] = []
        asked: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        opened.on("request", lambda request: asked.append(request.url))
        sign_in(opened, team)
        yield opened
        assert [text for text in said if "404" not in text and "400" not in text] == []
        assert [url for url in asked if not url.startswith((team.url, "data:"))] == []


def sign_in(page: Any, team: Server) -> None:
    page.goto(f"{team.url}/-/sign-in")
    expect(page.get_by_label("Token")).to_be_focused()  # Chromium complains if it was filled before
    page.get_by_label("Token").fill(team.admin)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{team.url}/")


def test_a_sign_in_link_signs_in_once_and_leaves_no_code_in_the_history(
    browser: Browser, team: Server
) -> None:
    code = create_sign_in_code(team.data, tokens.hash_token(team.admin))
    with new_page(browser) as page:
        page.goto(f"{team.url}/-/sign-in/link#{code}")
        page.wait_for_url(f"{team.url}/")
        wait_for_heading(page, "Newest versions")
        page.go_back()
        assert code not in page.url
    with new_page(browser) as page:
        page.goto(f"{team.url}/-/sign-in/link#{code}")
        page.get_by_text("used already").wait_for()


def test_the_keyboard_alone_reaches_the_search_an_adapter_a_comparison_and_the_fleet(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("name:support-tone")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=name*")
    page.get_by_role("link", name="acme/support-tone@5").first.focus()
    page.keyboard.press("Enter")
    wait_for_heading(page, "Live")
    page.get_by_role("button", name="Compare selected").focus()
    page.keyboard.press("Enter")
    wait_for_heading(page, "Measurements")
    page.keyboard.press("g")
    page.keyboard.press("f")
    wait_for_heading(page, "Recalls")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_typing_a_query_offers_completions_of_the_last_word(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("method:lora name:")
    offered = page.locator("#queries option[value='method:lora name:acme/sql-writer']")
    offered.wait_for(state="attached")


def test_parts_that_load_late_arrive_when_they_come_into_view(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/{TONE}")
    page.get_by_role("heading", name="Fit to engines").scroll_into_view_if_needed()
    page.get_by_text("Served as trained by").wait_for()
    page.get_by_role("heading", name="Lineage").scroll_into_view_if_needed()
    page.get_by_role("link", name="acme/support-sql@1").wait_for()


def test_a_worker_that_reports_appears_on_the_open_fleet_page_by_itself(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/-/fleet")
    page.get_by_role("heading", name="Workers").wait_for()
    assert page.get_by_text("gpu-9").count() == 0
    team.registry().workers.report(WorkerReport(worker="gpu-9", engine="sglang", residents=()))
    page.get_by_text("gpu-9").wait_for()


def test_the_focus_survives_the_replacement_of_a_part(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/-/fleet")
    link = page.locator("section[aria-labelledby=workers] a").first
    link.focus()
    address = link.get_attribute("href")
    team.registry().workers.report(WorkerReport(worker="gpu-00", engine="sglang", residents=()))
    page.get_by_text("gpu-00").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('href')") == address

    page.goto(f"{team.url}/{TONE}")
    page.get_by_role("link", name="Show the verdict of every engine").focus()
    page.get_by_text("Served as trained by").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Fit to engines"


def test_no_action_of_the_audit_log_is_broken_within_a_word(page: Page, team: Server) -> None:
    user = TokenRequest(name="quality.assurance.office", role="admin", namespaces=("*",))
    auditor = team.registry(team.registry().tokens.create(user).secret)
    auditor.principals.create("user", "someone.new")
    page.set_viewport_size({"width": 320, "height": 720})
    page.goto(f"{team.url}/-/activity")
    widths = page.evaluate(
        """[...document.querySelectorAll("td .action")].map((cell) => {
          const whole = document.createElement("span");
          whole.className = "mono nowrap";
          whole.style.cssText = "position: absolute; white-space: nowrap";
          cell.parentElement.append(whole);
          const widest = Math.max(...cell.textContent.split(/(?<=[._])/).map((part) => {
            whole.textContent = part;
            return whole.getBoundingClientRect().width;
          }));
          whole.remove();
          return [cell.textContent, widest, cell.getBoundingClientRect().width];
        })"""
    )
    assert widths
    assert [text for text, widest, width in widths if widest > width + 1] == []


def test_the_keyboard_alone_creates_and_revokes_a_token_with_confirmation(page: Page, team: Server) -> None:
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.get_by_role("link", name="Tokens", exact=True).focus()
    page.keyboard.press("Enter")
    page.get_by_role("textbox", name="Name", exact=True).focus()
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    wait_for_heading(page, "Copy this now")
    secret = page.get_by_role("region", name="the secret").inner_text()
    assert secret.startswith("adr_")
    page.get_by_role("link", name="Revoke the token by keyboard").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Revoke the token by keyboard")
    dialog.wait_for()
    page.wait_for_load_state()
    assert dialog.evaluate("dialog => dialog.matches(':modal')")
    assert dialog.get_by_role("link", name="Cancel").evaluate("link => link === document.activeElement")
    with page.expect_navigation():
        page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="Revoke the token by keyboard").focus()
    page.keyboard.press("Enter")
    dialog.wait_for()
    page.wait_for_load_state()
    page.get_by_role("button", name="Revoke the token").focus()
    page.keyboard.press("Enter")
    page.get_by_text("The token is revoked.").wait_for()
    assert secret not in page.content()


def test_a_form_is_not_sent_again_by_a_reload_or_the_back_button(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/-/settings/tokens")
    page.get_by_role("textbox", name="Name", exact=True).fill("sent once")
    page.keyboard.press("Enter")
    wait_for_heading(page, "Copy this now")

    page.reload()
    wait_for_heading(page, "All tokens")
    page.goto(team.url)
    page.go_back()
    wait_for_heading(page, "All tokens")

    assert page.get_by_role("heading", name="Copy this now").count() == 0
    names = [token.name for token in team.registry().tokens.list(limit=200).items]
    assert names.count("sent once") == 1


def test_a_jobs_log_grows_on_its_open_page_until_it_is_cancelled(page: Page, team: Server) -> None:
    inputs = [f"{TONE}@4", f"{TONE}@5"]
    order = JobOrder(kind="combine", task={"inputs": inputs, "to": "acme/in-chromium"})
    job = team.registry().jobs.submit(order)
    page.goto(f"{team.url}/-/jobs/{job.id}")
    page.get_by_text("The job waits for a runner.").wait_for()
    with team.catalog.write() as tx:
        jobs.append_log(tx, job.id, "start", ["reading the first adapter"], job.submitted_at)
    page.get_by_text("reading the first adapter").wait_for()
    page.get_by_role("link", name="Cancel the job").click()
    page.get_by_role("button", name="Cancel the job").click()
    page.get_by_role("button", name="Retry").wait_for()
    assert team.registry().jobs.get(job.id).state == "cancelled"


def test_two_versions_chosen_on_an_adapters_page_become_a_recipe(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/{TONE}")
    page.get_by_role("button", name="Combine selected").click()
    page.get_by_role("heading", name="Recipe").wait_for()
    page.get_by_label("Method").select_option("ties")
    page.get_by_role("button", name="Update").click()
    page.wait_for_url("**method=ties**")
    assert "method: ties" in page.get_by_role("region", name="the recipe", exact=True).inner_text()


_SHOW_WIDEST_AGES = """
for (const time of document.querySelectorAll("time"))
    if (/^now$| ago$/.test(time.textContent)) time.textContent = "59 min ago"
"""
"""Ages depend on how long the tests have been running."""


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make environment)")
@pytest.mark.parametrize("address", ADDRESSES)
def test_a_page_is_accessible_and_fits_in_every_width_light_and_dark(
    page: Page, team: Server, address: str
) -> None:
    page.goto(team.url + address)
    page.evaluate(_SHOW_WIDEST_AGES)
    for width, scheme in LOOKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not page.evaluate(is_wider), (width, scheme)
        assert serious_faults(page) == [], (width, scheme)


def test_findings_aliases_metrics_and_ages_fit_beside_each_other_on_a_phone(
    browser: Browser, start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    options = PushOptions(metrics={"kept_energy": 0.578815}, alias="prod")
    pushed = push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), TONE, options=options).version
    server.registry().aliases.move(TONE, "p" * 64, pushed.digest, None)
    loaded = ResidentReport(
        name=TONE, digest=pushed.digest, served_as="tone", condition="serving", since=pushed.created_at
    )
    server.registry().workers.report(
        WorkerReport(worker=f"gpu-{'k' * 60}", engine="vllm", residents=(loaded,))
    )
    with new_page(browser, viewport={"width": 320, "height": 700}) as page:
        sign_in(page, server)
        for address in ("/", f"/{TONE}", f"/-/adapters/{TONE}/1/promote", "/-/fleet", "/-/activity"):
            page.goto(server.url + address)
            page.evaluate(_SHOW_WIDEST_AGES)
            assert page.evaluate("document.documentElement.scrollWidth") == 320, address


@pytest.mark.heavy
def test_the_longest_names_fit_in_every_width(
    browser: Browser, start: Callable[..., Server], tmp_path: Path
) -> None:
    server, name = start(), f"acme/{'W' * 96}"
    options = PushOptions(metrics={letter * 64: 0.5 for letter in "mw"})
    push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), name, options=options)
    edit = AdapterEdit(description="L" * 400, tags=("t" * 64,))
    server.registry().adapters.edit(AdapterName.parse(name), edit)
    with new_page(browser, reduced_motion="reduce") as page:
        sign_in(page, server)
        for address in ("/", f"/{name}"):
            page.goto(server.url + address)
            for width, _ in LOOKS:
                page.set_viewport_size({"width": width, "height": 900})
                is_wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
                assert not page.evaluate(is_wider), (address, width)


def test_the_reference_shows_every_operation_under_the_strict_policy(page: Page, team: Server) -> None:
    page.goto(f"{team.url}/-/docs")
    page.get_by_role("link", name="adapters", exact=True).wait_for()
    if AXE.exists():
        assert serious_faults(page) == []


def test_without_scripts_every_page_and_part_is_reached_by_links(browser: Browser, team: Server) -> None:
    with new_page(browser, java_script_enabled=False) as page:
        sign_in(page, team)
        page.goto(f"{team.url}/{TONE}")
        page.get_by_role("link", name="Show the verdict of every engine").click()
        page.get_by_text("Served as trained by").wait_for()
        for address in ("/-/fleet", "/-/jobs"):
            page.goto(team.url + address)
            expect(page.get_by_text("Reload it to see newer data")).to_be_visible()
            expect(page.get_by_text("updates itself")).to_be_hidden()
            expect(page.get_by_text("for keyboard shortcuts")).to_be_hidden()
        page.goto(f"{team.url}/-/settings/namespaces/acme/members")
        page.get_by_role("link", name="Remove tom").click()
        page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
        page.get_by_role("dialog").wait_for(state="detached")
        page.get_by_role("link", name="Remove tom").wait_for()
