"""What can be said of an adapter that another tool than PEFT wrote, from its config and its header."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapter.header import FLOATS
from adaptry.adapter.view import Adapter
from adaptry.checks.codes import finding
from adaptry.checks.wording import counted, folded, shortened
from adaptry.report import Finding


def check_foreign(adapter: Adapter) -> Iterator[Finding]:
    """The findings that need no base."""
    spec, tool = adapter.spec, adapter.format.tool
    if "not_described" in spec.traits:
        yield finding(
            "method_not_described", f"the rules of {spec.method}, as {tool} writes it, are not known here"
        )
    if not spec.modules and not spec.shared:
        yield finding(
            "no_effect", f"none of its {counted(len(adapter.tensors), 'tensor')} is one that {tool} would use"
        )
    elif spec.unclaimed:
        names = shortened(folded(spec.unclaimed))
        yield finding("keys_unknown", f"{tool} writes no tensors such as {names}", spec.unclaimed)
    integers = [name for name, info in adapter.tensors.items() if info.dtype not in FLOATS]
    if integers:
        yield finding("integer_weights", f"{counted(len(integers), 'tensor')} ({integers[0]})", integers)
    if "alpha_unknown" in spec.traits:
        yield finding("alpha_unknown", f"{tool} loads it with alpha = rank")
