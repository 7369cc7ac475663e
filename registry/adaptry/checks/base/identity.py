"""Whether the base that an adapter is checked against is its own base: by content, if both are known.

Models of one family have equal shapes, but different weights. A cast or a quantised copy of the same weights
is the same model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.checks.codes import build_finding
from adaptry.core.refs import is_folder
from adaptry.core.report import Finding


def check_same_base(
    own: BaseRecord, base: BaseRecord, own_name: str, name: str, *, is_allowed: bool = False
) -> Iterator[Finding]:
    """A finding if `base` is not the same model as `own`, the adapter's base. It blocks; with `is_allowed` it
    warns.
    """
    match = match_bases(own, base)
    if match.is_same_model:
        return
    finding = build_finding(
        "other_base", f"it is for {own_name}, but {name} is another model: {match.evidence}"
    )
    yield finding.model_copy(update={"severity": "warns"}) if is_allowed else finding


def check_name(declared: str | None, name: str | None, others: Collection[str]) -> Iterator[Finding]:
    """A finding if `declared`, the config's base name, is not one of the base's names: `name` or one of
    `others`.
    """
    if declared and name and declared not in (name, *others) and not is_folder(declared):
        yield build_finding(
            "base_name_differs", f"its config names {declared[:120]!a}, but it was checked against {name}"
        )
