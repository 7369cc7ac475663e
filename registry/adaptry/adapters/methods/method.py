"""What we know of one adapter method, as a value: its tensors, its numbers, what it does to a weight.

A method is one file with one `METHOD`, entered in the table `METHODS`. Describing needs names, shapes and
config only; the functions that change weights are written here too, next to the names they use, and load
torch when they are called, never when this is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.spec import ExtraKind, ExtraWeight, ModuleKind, ModuleSpec

if TYPE_CHECKING:
    from torch import Tensor, dtype

_NAME_INSIDE = re.compile(r"\.default(?=(?:\.(?:weight|bias))?$)")

Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of a module, by role; the shared tensors' too."""


class ModuleSize(NamedTuple):
    """A module's numbers, read off its tensors. 0 where they do not tell (an IA3 vector's fan_in, say)."""

    rank: int
    fan_in: int
    fan_out: int
    kind: ModuleKind = "linear"


class WeightSides(NamedTuple):
    """The weight of a base that a module changes: outputs, inputs (of a flat kernel in·k…) and the kernel."""

    fan_out: int
    fan_in: int
    kernel: tuple[int, ...] = ()


class ModuleTensors(Protocol):
    """What a change may use: the module's tensors and more, as torch tensors."""

    @property
    def config(self) -> AdapterConfig: ...

    @property
    def module(self) -> ModuleSpec: ...

    @property
    def orientation(self) -> str:
        """`linear` [out, in], `conv1d` [in, out], `conv`, `embedding` [rows, dim], `attention`, `parameter`,
        `norm`.
        """
        ...

    def __contains__(self, role: str) -> bool: ...

    def __getitem__(self, role: str) -> Tensor:
        """The tensor of a role: floats in float32 (PEFT's holding dtype), integers as they are. Shared ones
        too.
        """
        ...

    @property
    def dtype(self) -> dtype:
        """In which the base holds the weight: some methods hold numbers of their own in the same."""
        ...

    @property
    def sides(self) -> Mapping[str, tuple[int, int]]:
        """(outputs, inputs) of every matrix of the base that the adapter changes, by its module's path."""
        ...

    def bias(self) -> Tensor | None:
        """The base's bias of the module, untouched, in its own dtype; None where it has none."""
        ...

    def weight(self) -> Tensor:
        """For a change of a bias: the base's weight of the module, untouched, in its own dtype."""
        ...


ChangeFunction = Callable[["Tensor", ModuleTensors], "Tensor"]
"""`change(weight, parts)`: a new weight, same shape and dtype; `weight` is as stored, not to be written."""

FactorsFunction = Callable[[ModuleTensors, int, int], "tuple[Tensor, Tensor]"]
"""`factors(parts, fan_out, fan_in)`: up [fan_out, r] and down [r, fan_in], float32, whose product is the
whole update of the weight as a matrix [out, in·k…], whichever way it is stored.
"""

LoraForm = Literal["itself", "exact", "given_base", "approximate", "no"]
"""How a method can be written as a LoRA: is one; exactly; exactly for one base; by the nearest one; not."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    `key_patterns`: pattern of what follows a module's path in a key → role. `shared`: pattern of a
    model-level name (after `base_model.`) → role. `prefix`: what stands before a module's path.
    `required_shared`: the shared roles without which the file is not whole. `replaced`: pattern of a key
    (groups `path` and, unless it is the weight, `parameter`) that holds a full weight → its kind.
    `module_size`: the module's numbers from its shapes; it raises `KeyError`, `IndexError` or `ValueError`
    where they are not a whole module's. `weight` and `bias`: how it changes them; where both are None it
    cannot be merged, and `unmergeable_hint` says why and what to do. `lora_form`: how its updates can be
    written as a LoRA, "no" where it has exactly none; `lora_form_of_variant`: how those of a config for which
    that is not true. `factors`: its update as a LoRA's factors, where it is exactly one whatever the base's
    values are. `integer_roles`: roles of tensors that are whole numbers. `untrained_roles`: pattern of the
    roles of those that are drawn or taken from the base, and never trained. `names_modules`: whether a file
    of this config says which modules it changes. `mismatch`: why a module does not fit a weight of
    the base, or PEFT would refuse it there, where its `module_size` does not tell; it ends a sentence that
    begins with the module.
    `needs_base`: whether its change depends on the base's values. `unmergeable_reason`: why an adapter of
    this config cannot be merged. `check_installed`: raises `MissingDependency` where a package that its
    change needs, beside torch, is not there. `merge_difference`: how merging into a weight of this shape
    differs from what the live adapter does, if it does; it ends a sentence. `tolerance`: how near a merge is
    to that of the method's own library.
    """

    name: str
    title: str
    key_patterns: Mapping[str, str]
    module_size: Callable[[Shapes, AdapterConfig], ModuleSize]
    shared: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "base_model.model."
    replaced: Mapping[str, ExtraKind] = field(default_factory=dict)
    scale: Callable[[AdapterConfig, ModuleSpec], float] = lambda config, module: 1.0
    weight: ChangeFunction | None = None
    bias: ChangeFunction | None = None
    changes_bias: Callable[[ModuleSpec], bool] = lambda module: True
    unmergeable_hint: str = ""
    lora_form: LoraForm = "no"
    lora_form_of_variant: Callable[[AdapterConfig], LoraForm | None] = lambda config: None
    lora_rank: Callable[[ModuleSpec, AdapterConfig], int | None] = lambda module, config: None
    factors: FactorsFunction | None = None
    needs_base: bool = False
    integer_roles: frozenset[str] = frozenset()
    untrained_roles: str = ""
    names_modules: Callable[[AdapterConfig], bool] = lambda config: True
    mismatch: Callable[[ModuleSpec, Shapes, AdapterConfig, WeightSides], str | None] = (
        lambda module, shapes, config, weight: None
    )
    tolerance: str = "bit-equal"
    traits: Callable[[AdapterConfig], list[str]] = lambda config: []
    unmergeable_reason: Callable[[AdapterConfig], str | None] = lambda config: None
    depends_on_base: Callable[[AdapterConfig], bool] = lambda config: False
    required_shared: Callable[[AdapterConfig], tuple[str, ...]] = lambda config: ()
    virtual_tokens: Callable[[AdapterConfig, Shapes], int | None] = lambda config, shapes: None
    check_installed: Callable[[], None] = lambda: None
    merge_difference: Callable[[tuple[int, ...]], str | None] = lambda shape: None

    @property
    def is_mergeable(self) -> bool:
        return self.weight is not None or self.bias is not None or bool(self.replaced)

    def needs_base_for(self, config: AdapterConfig) -> bool:
        """Whether an adapter of this config changes a weight by a rule that looks at the base's values."""
        return self.needs_base or self.depends_on_base(config)

    def lora_form_for(self, config: AdapterConfig | None = None) -> LoraForm:
        """How an adapter of (most) such configs can become a LoRA: a matrix's update has a nearest one."""
        if config is not None:
            if self.unmergeable_reason(config):
                return "no"
            if (other := self.lora_form_of_variant(config)) is not None:
                return other
        return "approximate" if self.lora_form == "no" and self.weight is not None else self.lora_form

    def is_trained(self, role: str) -> bool:
        """Whether the tensors of a role are trained; others are kept so as not to make them again."""
        return role not in self.integer_roles and not re.fullmatch(self.untrained_roles, role)

    def role(self, key: str) -> tuple[str, str] | None:
        """(module path, role) of a key without its prefix, or None where it is not one of the method's.

        PEFT loads an adapter as `default`, so a key may also have that name where PEFT puts it.
        """
        for written in dict.fromkeys((key, _NAME_INSIDE.sub("", key))):
            for tail, role in self.key_patterns.items():
                if match := re.fullmatch(rf"(?P<path>.+?)\.{tail}", written):
                    rest = match.groupdict().get("rest")
                    return match["path"], f"{role}.{rest}" if rest else role
        return None

    def replacement_of(self, key: str, name: str, info: TensorInfo) -> ExtraWeight | None:
        """The full weight that `key` (`name` without its prefix) is by the method's own names, if any."""
        for pattern, kind in self.replaced.items():
            if match := re.fullmatch(pattern, key):
                parameter = match.groupdict().get("parameter", "weight")
                return ExtraWeight(
                    target=f"{match['path']}.{parameter}", kind=kind, tensor=name, shape=info.shape
                )
        return None

    def shared_role(self, name: str) -> str | None:
        for pattern, role in self.shared.items():
            if match := re.fullmatch(pattern, name):
                rest = match.groupdict().get("rest")
                return f"{role}.{rest}" if rest else role
        return None


def add_delta(
    delta: Callable[[ModuleTensors, tuple[int, ...]], Tensor], *, rounding: Literal["once", "twice"] = "once"
) -> ChangeFunction:
    """Change of a method that adds `delta(parts, shape)`, fp32 of the weight's stored shape, as PEFT does.

    Once: `W + Δ` in float32, rounded to W's dtype. Twice: Δ is rounded to W's dtype first.
    """

    def change(weight: Tensor, parts: ModuleTensors) -> Tensor:
        update = delta(parts, tuple(weight.shape))
        if rounding == "twice":
            return weight + update.to(weight.dtype)
        return (weight.float() + update).to(weight.dtype)

    return change


def factor_product(factors: FactorsFunction) -> Callable[[ModuleTensors, tuple[int, ...]], Tensor]:
    """For `add_delta`, the update of a matrix by a method's factors alone: up @ down, turned for a Conv1D."""

    def delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
        is_turned = parts.orientation == "conv1d"
        up, down = factors(parts, *(shape[::-1] if is_turned else shape))
        return (up @ down).T if is_turned else up @ down

    return delta


def common_number(*numbers: int) -> int:
    """The number that all of them are: for a `module_size`, whose tensors must agree. Raises `ValueError`."""
    if len(set(numbers)) != 1:
        found = " and ".join(str(number) for number in dict.fromkeys(numbers))
        raise ValueError(f"its tensors and the config give {found}, where there is one number")
    return numbers[0]


def trained_rank(config: AdapterConfig, rank: int, default: int = 8) -> int:
    """`rank`, if it is the config's rank (else PEFT's default) or in `rank_pattern`. Raises `ValueError`."""
    if rank != config.rank(default=default) and rank not in config.pattern_values("rank_pattern").values():
        said = config.rank(default=default)
        raise ValueError(f"the tensors have rank {rank}, and the config says {said}")
    return rank
