"""Texts that people write: those that a database cannot store are refused before anything is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from adaptry.registry.commit_info import CommitNote
from adaptry.registry.records import AdapterEdit, PushOptions, StateChange


@pytest.mark.parametrize(
    "make",
    [
        lambda text: AdapterEdit(description=text),
        lambda text: PushOptions(force_reason=text),
        lambda text: StateChange(state="yanked", reason=text),
        lambda text: CommitNote(title=text),
        lambda text: CommitNote(title="a title", message=text),
    ],
)
def test_the_character_that_postgresql_cannot_hold_is_refused(make: Callable[[str], object]) -> None:
    make("a line\nand another, ü")
    with pytest.raises(ValidationError, match="should match pattern"):
        make("a line\0")
