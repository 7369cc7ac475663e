"""A method of combining adapters, as a value: its parameters, and one function from updates to an update.

A method sees one site at a time and knows no files. Adding one is one function and one entry in
`COMBINE_METHODS`; the recipe's schema, the command line's help and the docs are made from the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from adaptry.core.errors import Invalid

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from adaptry.compute.tensors.lowrank import Factors

Number: TypeAlias = float | int | bool | str
DeltaForm = Literal["factors", "dense"]
ReplayMode = Literal["no", "by site", "in order"]
"""Whether another program's arithmetic is reproduced: weights of 0 count and the result is final as it comes.
`in order`: also its random numbers, site after site in the model's order.
"""


@dataclass(frozen=True, slots=True)
class MethodParameter:
    """A number (or a word) that a method takes: its default, its bounds or choices, and what it is."""

    default: Number
    about: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check_value(self, name: str, value: object) -> Number:
        """`value` as this parameter's kind. Raises `Invalid` with what it takes."""
        if self.choices:
            if value not in self.choices:
                raise Invalid(f"{name} is one of {', '.join(self.choices)}, not {str(value)[:40]!r}")
            return str(value)
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise Invalid(f"{name} is true or false, not {str(value)[:40]!r}")
            return value
        is_whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
            raise Invalid(f"{name} is a {'whole ' if is_whole else ''}number, not {str(value)[:40]!r}")
        if not self._is_inside(value):
            raise Invalid(f"{name} lies from {self.low:g} to {self.high:g}, not at {value:g}")
        return value if is_whole else float(value)

    def _is_inside(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class PeftReplay:
    """What a reproduced program's bits depend on besides numbers: whether its layer keeps the weight
    transposed, the `kernel` of a convolution, and its one generator.
    """

    is_transposed: bool = False
    kernel: tuple[int, ...] = ()
    generator: Generator | None = None


@dataclass(frozen=True, slots=True)
class CombineInputs:
    """What a method gets of one site: the updates of the adapters that have one there, each with its trained
    scale, in the recipe's order; their weights; the parameters' values; `rank`, the rank the result is to
    have, for a method whose arithmetic depends on it.

    `input_positions` says which of the recipe's inputs the updates are of; `all_weights` are the weights here
    of all of them, also of those without an update at this site, for methods that take absence for an update
    of zero. `site_name` is for errors.

    `random(i)` is a fresh generator for the i-th update, seeded by recipe, site and input: never by order or
    threads.
    """

    updates: Sequence[Factors]
    weights: Sequence[float]
    values: Mapping[str, Number]
    random: Callable[[int], Generator]
    rank: int | None = None
    input_positions: Sequence[int] = ()
    all_weights: Sequence[float] = ()
    site_name: str = ""
    replay: PeftReplay | None = None

    def number(self, name: str) -> float:
        return float(self.values[name])

    def word(self, name: str) -> str:
        return str(self.values[name])

    def flag(self, name: str) -> bool:
        return bool(self.values[name])


CombineFunction = Callable[[CombineInputs], "Factors | Tensor"]
"""Factors: the update, with the rank it needs. A tensor [..., out, in]: dense, to be brought to a rank."""


@dataclass(frozen=True, slots=True)
class CombineMethod:
    """`name` as recipes spell it; `source`: paper and code whose arithmetic it is; `parameters` by name;
    `delta_form`: whether it stays in factors or forms one site's updates densely; `inputs`: how many adapters
    it takes, at least and at most; `rank`: the rank of its result from the ranks of its inputs, where no rank
    is asked for; `uses_weights`: whether weights other than 0 and 1 mean something to it; `replay_mode`:
    whether it is another program's to the bit; `differences`: where PEFT or mergekit do otherwise under this
    name.
    """

    name: str
    title: str
    combine: CombineFunction
    source: str
    parameters: Mapping[str, MethodParameter] = field(default_factory=dict)
    delta_form: DeltaForm = "factors"
    inputs: tuple[int, int] = (1, 64)
    rank: Callable[[Sequence[int]], int] = sum
    uses_weights: bool = True
    replay_mode: ReplayMode = "no"
    differences: str = ""

    def check_values(self, values: Mapping[str, object]) -> dict[str, Number]:
        """All parameters with their values or defaults, in the table's order. Raises `Invalid`."""
        unknown = sorted(values.keys() - self.parameters.keys())
        if unknown:
            takes = ", ".join(self.parameters) or "no parameters"
            raise Invalid(f"{self.name} has no parameter {unknown[0]!r} (it takes {takes})")
        return {
            name: parameter.check_value(f"{self.name}'s {name}", values.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }
