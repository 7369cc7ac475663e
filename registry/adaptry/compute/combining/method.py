"""A method of combining adapters, as a value: its parameters, and a function from updates to one update.

A method processes one site at a time and knows no files. To add one, write a function and an entry in
`COMBINE_METHODS`, from which the recipe's schema, the command line's help and the docs are generated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Literal, TypeAlias

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from adaptry.compute.tensors.lowrank import Factors

Number: TypeAlias = float | int | bool | str
DeltaForm = Literal["factors", "dense"]
ReplayMode = Literal["no", "by site", "in order"]
"""Whether another program's arithmetic is reproduced: weights of 0 count, and the result is not truncated
further. `in order`: its random numbers too, site by site in the model's order.
"""


@dataclass(frozen=True, slots=True)
class MethodParameter:
    """A number or word that a method takes: default, bounds or choices, and description."""

    default: Number
    description: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    def check_value(self, name: str, value: object) -> Number:
        """`value` in this parameter's type. Raises `Invalid`, with the allowed values."""
        if self.choices:
            if value not in self.choices:
                raise Invalid(f"{name} must be one of {', '.join(self.choices)}, not {str(value)[:40]!r}")
            return str(value)
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise Invalid(f"{name} must be true or false, not {str(value)[:40]!r}")
            return value
        is_whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
            raise Invalid(f"{name} must be a {'whole ' if is_whole else ''}number, not {str(value)[:40]!r}")
        if not self._is_inside(value):
            raise Invalid(f"{name} must be from {self.low:g} to {self.high:g}, not {value:g}")
        return value if is_whole else float(value)

    def _is_inside(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@dataclass(frozen=True, slots=True)
class PeftReplay:
    """Further inputs on which a reproduced program's bits depend: whether its layer stores the weight
    transposed, the `kernel` of a convolution, and its single random generator.
    """

    is_transposed: bool = False
    kernel: tuple[int, ...] = ()
    generator: Generator | None = None


@dataclass(frozen=True, slots=True)
class CombineInputs:
    """The inputs of a method at one site: the updates of the adapters that have one there, including their
    trained scales, in the recipe's order; their weights; the values of the parameters; and `rank`, the
    requested rank of the result, for methods whose arithmetic depends on it.

    `input_positions` are the positions of the updates' adapters in the recipe. `all_weights` are the weights
    of all inputs, including those without an update at this site, for methods that treat absence as a zero
    update. `site_name` is for errors.

    `random(i)` is a new generator for the i-th update, seeded by recipe, site and input, independent of order
    and threads.
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
"""The result: factors with the rank that they need, or a dense tensor [..., out, in], which is then
truncated.
"""


@dataclass(frozen=True, slots=True)
class CombineMethod:
    """`name`: its name in recipes. `source`: the paper and code that it implements. `parameters`: by name.
    `delta_form`: whether it works on factors or forms a site's updates densely. `inputs`: the minimum and
    maximum number of adapters. `rank`: the rank of its result from the ranks of its inputs, if no rank is
    requested. `uses_weights`: whether weights other than 0 and 1 have a meaning. `replay_mode`: whether it
    reproduces another program bit for bit. `differences`: how PEFT or mergekit differ under this name.
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
        """All parameters with given values or defaults, in the table's order. Raises `Invalid`."""
        unknown = sorted(values.keys() - self.parameters.keys())
        if unknown:
            takes = ", ".join(self.parameters) or "no parameters"
            raise Invalid(f"{self.name} has no parameter {unknown[0]!r} (it takes {takes})")
        return {
            name: parameter.check_value(f"{self.name}'s {name}", values.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }
