"""Differences between two configs: the same weights with other heads or another rope are a different
model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from adaptry.adapters.tensor_names import is_output_head
from adaptry.bases.fingerprinting.architecture import facts_of, identity_facts
from adaptry.compute.merging.plan import MergePlan


def facts_of_merge(plan: MergePlan) -> dict[str, Any]:
    """The facts of the config that the merge writes. (`Any`: JSON.)"""
    config = plan.checkpoint.config
    written = config.get("tie_word_embeddings")
    has_head = any(is_output_head(name) for name in plan.checkpoint.tensors)
    is_tied = written if isinstance(written, bool) else not has_head
    facts = facts_of(config, is_tied and not plan.is_untied)
    return {**facts, "vocab_size": plan.vocabulary} if plan.vocabulary else facts


def config_differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any], where: str = "the merge"
) -> tuple[str, ...]:
    """A sentence for each different fact; `where` names the source of the expected facts. Dtypes and names of
    heads are not compared. (`Any`: facts are JSON.)
    """
    return tuple(
        f"config.json: {path} is {other}, but in {where} {one}"
        for path, one, other in _differences(identity_facts(wanted), identity_facts(found), "")
    )


def _differences(
    wanted: Mapping[str, Any], found: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Any, Any]]:
    """The paths at which the two differ, with both values."""
    for key in sorted(wanted.keys() | found.keys()):
        one, other = wanted.get(key), found.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{path}{key}.")
        elif one != other:
            yield f"{path}{key}", one, other
