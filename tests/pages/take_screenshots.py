"""Takes the screenshots of docs/pages.md from the sample registry: `python -m tests.pages.take_screenshots`.

Needs Chromium and Playwright. The pictures are reduced to a palette, so that they stay small.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw
from tests.pages.chromium import chromium
from tests.pages.sample_registry import BASE, SQL, TONE, fill, fill_settings
from tests.pages.weight_scene import WEIGHTS, measure, push_translators

from adaptry.registry.job_types.records import JobOrder
from adaptry.testing.runners import RunnerProcess
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

IMAGES = Path(__file__).parents[2] / "docs" / "images"
COMBINE = f"/-/combine?ref={TONE}@4&weight=0.7&ref={SQL}@2&weight=0.3&method=ties&to=acme/support-sql"
POLICY = f"/-/settings/adapters/{TONE}/policies"
SHOTS = (
    ("home", "/", 1280, 860, "light"),
    ("adapter", f"/{TONE}", 1280, 1010, "light"),
    ("adapter-narrow", f"/{TONE}?version=3", 390, 844, "dark"),
    ("compare", f"/-/compare?ref={TONE}@prod&ref={TONE}@5&ref={TONE}@1", 1280, 900, "light"),
    ("promote", f"/-/adapters/{TONE}/5/promote", 1000, 1010, "light"),
    ("base", f"/-/base?key={BASE}", 1280, 780, "light"),
    ("fleet", "/-/fleet", 1280, 880, "dark"),
    ("policy", POLICY, 1280, 760, "light"),
    ("members", "/-/settings/namespaces/acme/members", 1280, 860, "light"),
    ("combine", COMBINE, 1280, 1560, "light"),
    ("jobs", "/-/jobs", 1280, 560, "dark"),
    ("weights", WEIGHTS, 1280, 1330, "light"),
)
"""Name, address, width, height and colour scheme of each."""


def loss_curve() -> bytes:
    """A picture for the README of the sample adapter."""
    picture = Image.new("RGB", (360, 160), "white")
    points = [(10, 20), (80, 90), (160, 120), (250, 135), (350, 140)]
    ImageDraw.Draw(picture).line(points, fill=(11, 87, 194), width=4)
    stored = io.BytesIO()
    picture.save(stored, "PNG")
    return stored.getvalue()


def take(server: Server, into: Path) -> None:
    """Writes every picture."""
    into.mkdir(exist_ok=True)
    with chromium() as browser:
        for name, address, width, height, scheme in SHOTS:
            with browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme="dark" if scheme == "dark" else "light",
                reduced_motion="reduce",
            ) as context:
                page = context.new_page()
                page.goto(f"{server.url}/-/sign-in")
                page.get_by_label("Token").fill(server.admin)
                page.get_by_role("button", name="Sign in").click()
                page.wait_for_url(f"{server.url}/")
                page.goto(server.url + address, wait_until="load")
                if address == POLICY:
                    page.get_by_role("textbox", name="Version").fill("5")
                    page.get_by_role("button", name="Try").click()
                    page.get_by_role("heading", name="to version 5").wait_for()
                if address == WEIGHTS:
                    page.get_by_role("heading", name="Weights", exact=True).scroll_into_view_if_needed()
                    page.get_by_role("heading", name="Singular values and effective rank").wait_for()
                    page.evaluate("document.getElementById('weights').closest('section').scrollIntoView()")
                picture = Image.open(io.BytesIO(page.screenshot()))
                picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
                    into / f"{name}.png", optimize=True
                )


def run_jobs(server: Server) -> None:
    """Previews and makes a combination with a real runner; one more job waits."""
    inputs = [f"{TONE}@4=0.7", f"{SQL}@2=0.3"]
    task = {"inputs": inputs, "method": "ties", "to": "acme/support-sql"}
    for kind in ("preview", "combine"):
        server.registry().jobs.submit(JobOrder(kind=kind, task=task))
    assert RunnerProcess(server.data, "--once").wait() == 0
    server.registry().jobs.submit(JobOrder(kind="verify", task={"read_bytes": True}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with running_server(ServerSettings(data=place / "data")) as started:
            fill(started.registry(), place, loss_curve())
            fill_settings(started.registry())
            push_translators(started.registry(), place)
            measure(started)
            run_jobs(started)
            take(started, IMAGES)
