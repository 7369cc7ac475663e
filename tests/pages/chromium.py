"""Debian's Chromium, driven by Playwright, and axe-core, for browser tests and screenshots."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

AXE = Path(sys.prefix) / "javascript" / "node_modules" / "axe-core" / "axe.min.js"
_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT = 60_000  # milliseconds, for a busy machine
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def chromium_path() -> str | None:
    """The installed browser; None without one (Debian: `apt-get install chromium`)."""
    return next((found for name in _PROGRAMS if (found := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def new_page(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page with its own cookies, closed after the block. (`Any`: Playwright's options of a context.)"""
    with browser.new_context(**options) as context:
        context.set_default_timeout(_TIMEOUT)
        yield context.new_page()


def wait_for_heading(page: Page, name: str) -> None:
    """Waits for a page with this heading, and for its scripts, without which keys and dialogs do nothing."""
    page.get_by_role("heading", name=name).wait_for()
    page.wait_for_load_state()


def serious_faults(page: Any) -> list[tuple[str, str]]:
    """The serious and critical problems that axe-core finds on the page, with the first place of each.
    (`Any`: a Playwright page.)
    """
    page.evaluate(AXE.read_text() + ";0")
    found = page.evaluate("axe.run().then(result => result.violations)")
    return [
        (one["id"], one["nodes"][0]["html"][:160])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
