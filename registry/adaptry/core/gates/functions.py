"""The functions that conditions may call, in one table: their arguments and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from adaptry.core.lazy_dataclass import dataclass

Scalar = str | float | bool
"""The type of an argument or result of a function."""
ValueType = Literal["number", "text", "yes or no"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument: its name, its type, and its default (None: it is required, unless `is_optional`)."""

    name: str
    type: ValueType = "text"
    default: Scalar | None = None
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class GateFunction:
    """`returns` is the type of the result. If a function has `fields`, a condition selects one of them, such
    as `.value`.
    """

    parameters: tuple[Parameter, ...]
    returns: ValueType
    summary: str
    fields: tuple[str, ...] = ()

    def usage(self, name: str) -> str:
        """The function's signature, such as `fits(runtime)`."""
        shown = [one.name if _is_required(one) else f"[{one.name}]" for one in self.parameters]
        return f"{name}({', '.join(shown)})" + (f".{'|'.join(self.fields)}" if self.fields else "")


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is None and not parameter.is_optional


_TASK, _METRIC, _VS = Parameter("task"), Parameter("metric"), Parameter("vs")
_FILTER = Parameter("filter", is_optional=True)

FUNCTIONS: Mapping[str, GateFunction] = {
    "eval": GateFunction(
        (_TASK, _METRIC, _FILTER),
        "number",
        "the newest value of a metric of a task, its standard error, or its number of documents",
        ("value", "stderr", "n"),
    ),
    "metric": GateFunction(
        (_METRIC,),
        "number",
        "the newest value of a metric without a task, such as one that was logged by hand",
    ),
    "has_metric": GateFunction(
        (_TASK, _METRIC, _FILTER), "yes or no", "whether there is evidence of a metric of a task"
    ),
    "noninferior": GateFunction(
        (
            _TASK,
            _METRIC,
            _VS,
            Parameter("margin", "number"),
            Parameter("confidence", "number", 0.95),
            _FILTER,
        ),
        "yes or no",
        "whether a metric is at most `margin` worse than that of the version at the alias `vs`, at a level of"
        " confidence; paired by document if the samples of both are stored",
    ),
    "comparable": GateFunction(
        (_TASK, _VS),
        "yes or no",
        "whether a task was measured in the same way as for the version at the alias `vs`: task hash or"
        " version, chat template, dataset, and number of documents",
    ),
    "fits": GateFunction(
        (Parameter("runtime"),),
        "yes or no",
        "whether an engine serves the version as it was trained, such as vllm@0.33,max_lora_rank=64",
    ),
    "approvals": GateFunction(
        (Parameter("group"),), "number", "how many members of a group approved exactly this move"
    ),
    "state": GateFunction((), "text", "the state of the version: active or deprecated"),
}


def written(name: str) -> str:
    """A call of the function as messages show it: `metric(…)`."""
    return f"{name}(\N{HORIZONTAL ELLIPSIS})" if FUNCTIONS[name].parameters else f"{name}()"
