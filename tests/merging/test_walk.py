"""A merge processes its inputs once, and the code passes them on in one direction."""

from __future__ import annotations

from pathlib import Path

from tests.merging.walk import Step, climbs_of, stays_of, walk_of_a_merge


def test_a_merge_binds_an_input_once(tmp_path: Path) -> None:
    assert walk_of_a_merge(tmp_path)[Step("checks/binding/bind.py", "bind")] == 1


def test_the_walk_of_a_merges_inputs_does_not_grow(tmp_path: Path) -> None:
    stays = stays_of(walk_of_a_merge(tmp_path))
    assert len(stays) <= 38, [stay[0].file for stay in stays]
    assert len(climbs_of(stays)) <= 2, climbs_of(stays)
