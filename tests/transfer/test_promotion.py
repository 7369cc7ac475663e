"""Aliases move only from the state that the caller saw."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, InvalidRef, NotFound
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations import promotion, transfer
from adaptry.storage.local import LocalRegistry
from adaptry.testing.samples import tiny_lora

TONE = AdapterName.parse("acme/tone")
FIRST, SECOND = Ref.parse("acme/tone@1"), Ref.parse("acme/tone@2")


@pytest.fixture
def tones(registry: LocalRegistry, tmp_path: Path) -> LocalRegistry:
    """A registry in which acme/tone has two versions."""
    for seed in (1, 2):
        transfer.push(registry, open_dir(tiny_lora(tmp_path / str(seed), seed=seed)), TONE)
    return registry


def test_an_alias_moves_to_a_version_and_back(tones: LocalRegistry) -> None:
    promotion.promote(tones, FIRST, "prod")

    forward = promotion.promote(tones, SECOND, "prod")
    back = promotion.rollback(tones, TONE, "prod")

    assert (forward.was, forward.alias.number) == (1, 2)
    assert (back.was, back.alias.number) == (2, 1)


def test_an_alias_already_at_the_version_does_not_move(tones: LocalRegistry) -> None:
    first = promotion.promote(tones, FIRST, "prod")
    again = promotion.promote(tones, FIRST, "prod")

    assert again.alias.generation == first.alias.generation
    assert not again.is_change


def test_an_alias_moves_only_from_the_version_it_was_seen_at(tones: LocalRegistry) -> None:
    promotion.promote(tones, FIRST, "prod", expect=0)

    with pytest.raises(Conflict, match="is at version 1, not absent; look again"):
        promotion.promote(tones, SECOND, "prod", expect=0)
    with pytest.raises(Conflict, match="does not exist, not at version 2"):
        promotion.promote(tones, FIRST, "staging", expect=2)

    assert promotion.promote(tones, SECOND, "prod", expect=1).alias.number == 2


def test_an_alias_that_never_moved_cannot_go_back(tones: LocalRegistry) -> None:
    promotion.promote(tones, FIRST, "prod")

    with pytest.raises(NotFound, match="has not moved since it was set to version 1"):
        promotion.rollback(tones, TONE, "prod")
    with pytest.raises(NotFound, match="no alias"):
        promotion.rollback(tones, TONE, "staging")


def test_an_alias_that_was_removed_and_set_again_has_not_moved_since(tones: LocalRegistry) -> None:
    promotion.promote(tones, FIRST, "prod")
    tones.aliases.remove(TONE, "prod", promotion.promote(tones, SECOND, "prod").alias.generation)
    promotion.promote(tones, FIRST, "prod")

    with pytest.raises(NotFound, match="has not moved since it was set to version 1"):
        promotion.rollback(tones, TONE, "prod")


def test_an_ambiguous_word_cannot_be_an_alias(tones: LocalRegistry) -> None:
    with pytest.raises(InvalidRef):
        promotion.promote(tones, FIRST, "latest")
