"""The recipe of a combination in its three forms: a page's query, a job's fields, and a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from urllib.parse import urlencode

import yaml
from starlette.datastructures import QueryParams

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.job_types.preview import MethodDescription, ParameterChoice
from adaptry.registry.job_types.tasks import combine_methods

MAX_INPUTS = 8
"""Maximum number of adapters that the page combines; a recipe file has no such limit."""
_PARAMETER = "p."


@dataclass(frozen=True, slots=True)
class CombineForm:
    """The form as submitted: refs with their weights, the method with its parameters, and the result."""

    refs: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    method: str = "linear"
    parameters: Mapping[str, str] = field(default_factory=dict)
    rank: str = ""
    to: str = ""
    is_uniform: bool = False

    @classmethod
    def of(cls, query: QueryParams) -> CombineForm:
        """Reads the form. Raises `Invalid` if there are more adapters than a page allows."""
        rows = [(ref.strip()[:256], weight) for ref, weight in _rows(query) if ref.strip()]
        if len(rows) > MAX_INPUTS:
            raise Invalid(
                f"a page combines at most {MAX_INPUTS} adapters; for more, use `adaptry combine --recipe`"
            )
        return cls(
            refs=tuple(ref for ref, _ in rows),
            weights=tuple(weight.strip()[:40] or "1" for _, weight in rows),
            method=query.get("method", "linear")[:64],
            parameters={
                name.removeprefix(_PARAMETER): value.strip()[:40]
                for name, value in query.items()
                if name.startswith(_PARAMETER) and value.strip()
            },
            rank=query.get("rank", "").strip()[:8],
            to=query.get("to", "").strip()[:193],
            is_uniform=query.get("uniform") == "on",
        )

    @property
    def choice(self) -> MethodDescription:
        """The chosen method. Raises `Invalid`."""
        for one in combine_methods():
            if one.name == self.method:
                return one
        raise Invalid(f"unknown method {self.method!a}; choose one from the list")

    def task(self, labels: Sequence[str], to: str) -> dict[str, object]:
        """The fields of a `combine` job, with these exact versions as inputs. Raises `Invalid`."""
        choice = self.choice
        inputs = [
            f"{label}={_number(weight, f'the weight of {label}'):g}"
            for label, weight in zip(labels, self.weights, strict=True)
        ]
        parameters = {
            name: _value(name, choice.parameters[name], text)
            for name, text in self.parameters.items()
            if name in choice.parameters  # parameters of a previously chosen method are ignored
        }
        fields: dict[str, object] = {"inputs": inputs, "method": self.method, "to": to}
        if parameters:
            fields["parameters"] = parameters
        if self.rank:
            fields["rank"] = int(_number(self.rank, "rank", whole=True))
        if self.is_uniform:
            fields["uniform"] = True
        return fields

    def address(self, base: str, **changes: object) -> str:
        """The page's address for this recipe with `changes`, and without the adapter at `without`."""
        without = changes.pop("without", None)
        rows = [
            pair for place, pair in enumerate(zip(self.refs, self.weights, strict=True)) if place != without
        ]
        values = [item for ref, weight in rows for item in (("ref", ref), ("weight", weight))]
        values += [
            ("method", self.method),
            *((f"{_PARAMETER}{name}", text) for name, text in self.parameters.items()),
        ]
        values += [(name, text) for name, text in (("rank", self.rank), ("to", self.to)) if text]
        values += [("uniform", "on")] if self.is_uniform else []
        values += [(name, str(value)) for name, value in changes.items()]
        return f"{base}?{urlencode(values)}"


def recipe_yaml(task: Mapping[str, object]) -> str:
    """The equivalent recipe file for `adaptry combine --recipe`."""
    recipe = {("output" if name == "to" else name): value for name, value in task.items()}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _rows(query: QueryParams) -> Sequence[tuple[str, str]]:
    refs, weights = query.getlist("ref"), query.getlist("weight")
    return list(zip(refs, [*weights, *[""] * len(refs)], strict=False))


def _number(text: str, what: str, whole: bool = False) -> float:
    try:
        found = int(text) if whole else float(text)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise Invalid(f"{what} is not a {'whole ' if whole else ''}number: {text[:40]!a}")
    return found


def _value(name: str, parameter: ParameterChoice, text: str) -> float | int | bool | str:
    """The text as the parameter's type; the method checks its bounds."""
    if parameter.choices:
        return text
    if isinstance(parameter.default, bool):
        return text in ("true", "on", "yes")
    return _number(text, name, whole=isinstance(parameter.default, int))
