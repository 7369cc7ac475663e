"""Combines several adapters of one base into one: recipe, plan, and the table of methods."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.compute.combining import (
    breadcrumbs,
    core_space,
    dare,
    della,
    iso,
    karcher,
    knots,
    linear,
    model_stock,
    peft_modes,
    pruning,
    sce,
    slerp,
    ties,
    tsv,
)
from adaptry.compute.combining.method import CombineMethod
from adaptry.core.errors import Invalid
from adaptry.core.suggestions import suggestion

COMBINE_METHODS: Mapping[str, CombineMethod] = {
    method.name: method
    for method in (
        *linear.METHODS,
        *ties.METHODS,
        *dare.METHODS,
        *pruning.METHODS,
        *della.METHODS,
        *breadcrumbs.METHODS,
        *sce.METHODS,
        *slerp.METHODS,
        *karcher.METHODS,
        *model_stock.METHODS,
        *knots.METHODS,
        *core_space.METHODS,
        *tsv.METHODS,
        *iso.METHODS,
        *peft_modes.METHODS,
    )
}
"""Every method, by the name that recipes use."""


def get_combine_method(name: str) -> CombineMethod:
    """The method called `name`. Raises `Invalid`, with the list of names, if it is unknown."""
    try:
        return COMBINE_METHODS[name]
    except KeyError:
        near = suggestion(name, COMBINE_METHODS) or f" (one of: {', '.join(COMBINE_METHODS)})"
        raise Invalid(f"unknown method {name[:40]!r}{near}") from None
