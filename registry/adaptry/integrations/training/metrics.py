"""The metrics of a step in a Trainer's log, with names that a registry accepts."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}")
_NO_METRIC = frozenset(["step", "epoch", "total_flos", "train_runtime", "learning_rate", "grad_norm"])
_MAX_METRICS = 64


def metrics_at_step(log: Iterable[Mapping[str, object]], step: int) -> dict[str, float]:
    """The finite numbers (not True or False) logged at `step`, without speeds and the optimizer's values; a
    later value replaces an earlier one.
    """
    found: dict[str, float] = {}
    for entry in log:
        if entry.get("step") == step:
            for name, value in entry.items():
                if _is_metric(name, value):
                    found[name] = float(value)  # type: ignore[arg-type]  # it is a number, as checked above
    return dict(list(found.items())[:_MAX_METRICS])


def _is_metric(name: str, value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and _NAME.fullmatch(name) is not None
        and name not in _NO_METRIC
        and not name.endswith(("_runtime", "_per_second", "_model_preparation_time"))
    )
