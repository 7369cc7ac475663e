"""Text in scripts other than Latin, and emoji, as users write them in descriptions and reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.pages.browser import Browser

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.records import AdapterEdit, StateChange
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

TONE = AdapterName.parse("acme/tone")
PERSIAN, HINDI, FAMILY = (
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "\u0915\u094d\u200d\u0937",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
)
TEXT = f"{PERSIAN} {HINDI} {FAMILY} \u05e9\u05dc\u05d5\u05dd \u65e5\u672c\u8a9e"


def test_joined_letters_and_emoji_are_shown_as_written_and_direction_marks_are_not(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    pushed = push(server.registry(), open_dir(tiny_lora(tmp_path / "lora")), TONE).version
    server.registry().adapters.edit(TONE, AdapterEdit(description=f"{TEXT} \u202eabc"))
    server.registry().versions.set_state(TONE, pushed.digest, StateChange(state="yanked", reason=TEXT), 0)

    text = Browser(server).get(f"/{TONE}").body.decode()

    assert text.count(TEXT) >= 3, "the description, the state and the history"
    assert "\u202e" not in text
