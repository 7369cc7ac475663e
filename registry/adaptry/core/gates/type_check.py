"""Computes a new condition with examples of what its functions return, which shows errors in it at once."""

from __future__ import annotations

import re

from adaptry.core.errors import Invalid
from adaptry.core.gates.evaluation import compute
from adaptry.core.gates.expression import Call, PolicyCondition
from adaptry.core.gates.functions import FUNCTIONS, Scalar, written

_KINDS = {"number": "a number", "text": "a string", "yes or no": "true or false"}
_TYPE_ERRORS = "No such overload", "Unsupported operation", "Undefined variable or function"


def check_types(condition: PolicyCondition) -> None:
    """Raises `Invalid` if CEL cannot parse or compute a condition, or its result is not a boolean."""
    examples: dict[str, Scalar] = {"number": 0.5, "text": "active", "yes or no": True}
    values = {
        f"call{place}": examples[FUNCTIONS[one.function].returns] for place, one in enumerate(condition.calls)
    }
    for place, one in enumerate(condition.calls):
        if one.function == "approvals" or one.field == "n":
            values[f"call{place}"] = 2
    found = compute(condition, values)
    if isinstance(found, str):
        raise Invalid(_explained(found, condition))


def _explained(problem: str, condition: PolicyCondition) -> str:
    """CEL's message about a new condition, without the names and examples that stand for its calls."""
    kinds = {_written(one): FUNCTIONS[one.function].returns for one in condition.calls}
    types = ", ".join(f"{call} is {_KINDS[kind]}" for call, kind in kinds.items())
    if problem.startswith("gives "):
        return f'its result is not true or false ({types}); compare it, as in metric("accuracy") >= 0.9'
    if any(words in problem for words in _TYPE_ERRORS):
        return (
            f"an operator has values of the wrong types ({types}): numbers are compared with numbers, and"
            " strings with strings; &&, || and ! take true or false; arithmetic takes numbers with a"
            " decimal point, such as 2.0"
        )
    for place, one in enumerate(condition.calls):
        problem = re.sub(rf"\bcall{place}\b", _written(one), problem)
    return problem


def _written(call: Call) -> str:
    return written(call.function) + (f".{call.field}" if call.field else "")
