"""The result of a `preview` job, which examines a combination before it is created; methods as choices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from adaptry.core.lazy_dataclass import dataclass
from adaptry.registry.records import Value

MAX_MODULES = 40


class PreviewModule(Value):
    """One module: how many inputs change it, their ranks and that of the result, and how they agree there, as
    in `CombinationPreview`.
    """

    module: str
    inputs: int
    ranks: tuple[int, ...]
    rank: int
    norms: tuple[float | None, ...] = ()
    conflict: float | None = None
    column_overlap: float | None = None
    row_overlap: float | None = None


class CombinationPreview(Value):
    """A plan, and how the inputs agree, without the recipe's weights.

    `norms` are ‖Δ‖ of each input over all modules. `conflict` is the share of Σ|Δ| on elements where signs
    differ. `column_overlap` and `row_overlap` are the share of the smaller column or row space that lies in
    the larger, as the mean over pairs of inputs and over modules. `memory`, `seconds` and `size` are the
    plan's, on the machine that computed it. `modules` are those of `total` with the largest conflict.
    """

    method: str
    inputs: tuple[str, ...]
    norms: tuple[float, ...]
    conflict: float | None
    column_overlap: float | None
    row_overlap: float | None
    memory: int
    seconds: float
    size: int
    total: int
    modules: tuple[PreviewModule, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterChoice:
    """A parameter of a method: its default, description, and bounds or allowed words."""

    default: float | int | bool | str
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodDescription:
    """A method of combining, and the minimum and maximum number of adapters that it combines."""

    name: str
    title: str
    inputs: tuple[int, int]
    uses_weights: bool
    parameters: Mapping[str, ParameterChoice] = field(default_factory=dict)
