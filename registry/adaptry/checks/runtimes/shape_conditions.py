"""Conditions on the shapes of factors, compared with each other, the config's ranks and the base's
weights.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.spec import ModuleSpec
from adaptry.checks.base.fit import check_fit
from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime

_HALVES = (("A", "B"), ("embedding_A", "embedding_B"))


def factor_ranks_differ(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules whose two factors have different ranks."""
    paths = [module.path for module in subject.spec.modules if len(set(_ranks(subject, module))) > 1]
    if not paths:
        return None
    return ConditionMatch(
        f"the two factors of {shorten_names(fold_layer_numbers(paths))} have different ranks", tuple(paths)
    )


def rank_undeclared(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors whose rank differs from `r` and `rank_pattern`."""
    paths = [
        module.path
        for module in subject.spec.modules
        if module.kind in ("linear", "embedding", "conv")
        and module.rank != scale_of(subject.config, module.name)[2]
    ]
    if not paths:
        return None
    return ConditionMatch(
        f"{shorten_names(fold_layer_numbers(paths))} has a rank that differs from the config", tuple(paths)
    )


def rank_of_factors_above(option: str) -> Condition:
    """A factor whose rank exceeds the server's limit, regardless of the config."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        limit = runtime.number(option)
        if not limit:
            return None
        ranks = {module.path: max(_ranks(subject, module), default=0) for module in subject.spec.modules}
        paths = [path for path, rank in ranks.items() if rank > limit]
        if not paths:
            return None
        names = shorten_names(fold_layer_numbers(paths))
        largest = max(ranks.values())
        return ConditionMatch(
            f"its largest rank is {largest}, but the server's limit is {limit} ({names})", tuple(paths)
        )

    return found


def unlike_base(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Factors whose sizes differ from a known base's weights."""
    if subject.base is None or subject.module_map is None:
        return None
    fits = check_fit(subject.adapter, subject.base, subject.module_map)
    wrong = [finding for finding in fits if finding.code == "shape_mismatch"]
    return ConditionMatch(wrong[0].reason, wrong[0].modules) if wrong else None


def _ranks(subject: CheckSubject, module: ModuleSpec) -> Iterator[int]:
    """The ranks of both factors, if they are matrices."""
    if module.kind not in ("linear", "embedding"):
        return
    tensors = subject.adapter.tensors
    for down, up in _HALVES:
        if down in module.tensors and up in module.tensors:
            yield tensors[module.tensors[down]].shape[0]
            yield tensors[module.tensors[up]].shape[1]
