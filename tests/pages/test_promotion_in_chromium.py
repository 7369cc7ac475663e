"""Moving an alias in a real browser: by keyboard in the dialog, with a conflict, and without scripts.

Skipped where Chromium or Playwright is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.pages.promotion_scene import PromotionScene, make_scene

from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        ExitStack() as at_the_end,
        running_server(
            ServerSettings(data=tmp_path_factory.mktemp("promotion")), at_the_end.callback
        ) as started,
    ):
        yield started


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def scene(server: Server, tmp_path: Path) -> PromotionScene:
    return make_scene(server, tmp_path)


def sign_in(page: Page, scene: PromotionScene, name: str, role: str = "owner") -> None:
    page.goto(f"{scene.server.url}/-/sign-in?next=/{scene.name}%3Fversion%3D3")
    expect(page.get_by_label("Token")).to_be_focused()  # Chromium complains if it was filled before
    page.get_by_label("Token").fill(scene.server.token(name, role, (scene.name.namespace,)))
    page.get_by_role("button", name="Sign in").click()
    wait_for_heading(page, "Live")


@pytest.fixture
def page(browser: Browser, scene: PromotionScene) -> Iterator[Page]:
    """The adapter's page in the browser of an owner, which must log nothing but refused requests."""
    with new_page(browser, viewport={"width": 1440, "height": 900}, reduced_motion="reduce") as opened:
        said: list[str] = []
        opened.on("console", lambda message: said.append(message.text))
        opened.on("pageerror", lambda error: said.append(str(error)))
        sign_in(opened, scene, "olga")
        yield opened
        assert [text for text in said if "409" not in text] == []


def test_the_keyboard_alone_approves_and_overrides_in_the_dialog(page: Page, scene: PromotionScene) -> None:
    page.get_by_role("link", name="Promote version 3").focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Promote version 3")
    dialog.get_by_text("only 0 of 2 conditions are met").wait_for()
    dialog.get_by_role("button", name="Approve this move").focus()
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Withdraw my approval").wait_for()
    dialog.get_by_text("Move it even though conditions are not met").focus()
    page.keyboard.press("Enter")
    dialog.get_by_label("Reason").focus()
    page.keyboard.type("the benchmark is broken")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**{scene.alias}")
    page.get_by_text("the benchmark is broken").wait_for()
    assert scene.prod[0] == 3
    page.get_by_role("link", name="Roll back to version 1").click()
    rollback = page.get_by_role("dialog", name="Roll back prod")
    rollback.get_by_role("button", name="Roll back to version 1").click()
    page.get_by_role("cell", name="rollback").wait_for()
    assert scene.prod[0] == 1


@pytest.mark.parametrize("with_scripts", [True, False], ids=["in the dialog", "without scripts"])
def test_a_reason_typed_before_the_session_ended_is_sent_after_signing_in_again(
    browser: Browser, scene: PromotionScene, with_scripts: bool
) -> None:
    with new_page(browser, java_script_enabled=with_scripts) as page:
        sign_in(page, scene, "olga")
        page.get_by_role("link", name="Promote version 3").click()
        page.get_by_text("Move it even though conditions are not met").click()
        page.get_by_label("Reason").fill("the benchmark is broken")
        page.context.clear_cookies()
        page.get_by_role("button", name="Override and move").click()
        with page.expect_popup() as popup:
            page.get_by_role("link", name="Sign in in another tab").click()
        sign_in(popup.value, scene, "olga")
        assert scene.prod[0] == 1
        page.get_by_role("button", name="Send the form again").click()
        page.get_by_text("the benchmark is broken").wait_for()
    assert scene.prod[0] == 3


def test_a_conflict_shows_the_changes_in_the_dialog(page: Page, scene: PromotionScene) -> None:
    page.get_by_role("link", name="Promote version 3").click()
    dialog = page.get_by_role("dialog", name="Promote version 3")
    dialog.get_by_text("Move it even though conditions are not met").click()
    dialog.get_by_label("Reason").fill("it is urgent")
    bert = scene.person("bert")
    assert bert.post(f"{scene.alias}/override", scene.fields(2, reason="a demonstration")).status == 303
    dialog.get_by_role("button", name="Override and move prod").click()
    dialog.get_by_role("alert").get_by_text("prod has moved since you opened this page").wait_for()
    dialog.get_by_role("alert").get_by_text("bert").wait_for()
    if AXE.exists():
        assert serious_faults(page) == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert scene.prod[0] == 2


def test_another_alias_is_chosen_in_the_dialog(page: Page) -> None:
    page.get_by_role("link", name="Promote version 3").click()
    dialog = page.get_by_role("dialog", name="Promote version 3")
    dialog.get_by_label("Alias").fill("staging")
    dialog.get_by_role("button", name="Show").click()
    dialog.get_by_text("staging has no policy").wait_for()
    dialog.get_by_role("button", name="Move staging to version 3").click()
    page.get_by_role("heading", name="tone@staging").wait_for()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make environment)")
def test_the_dialog_is_accessible_and_fits_on_a_phone_in_the_dark(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    page.get_by_role("link", name="Promote version 3").click()
    page.get_by_role("dialog", name="Promote version 3").wait_for()
    assert not page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    assert serious_faults(page) == []


def test_without_scripts_the_dialog_is_a_page_that_moves_the_alias(
    browser: Browser, scene: PromotionScene
) -> None:
    with new_page(browser, java_script_enabled=False) as page:
        sign_in(page, scene, "olga")
        page.get_by_role("link", name="Promote version 3").click()
        page.get_by_label("Alias").fill("staging")
        page.get_by_role("button", name="Show").click()
        page.get_by_role("button", name="Move staging to version 3").click()
        page.get_by_role("heading", name="tone@staging").wait_for()
