"""The definition of a PEFT method as a value: its tensors, its sizes, and how it changes a weight.

A method is one file with one `METHOD`, listed in the table `METHODS`. Describing an adapter needs only names,
shapes and config. The functions that change weights are next to the names that they use; they import torch
when they are called, never when their module is imported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from dataclasses import field
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, Self

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods.row_change import RowChangeFunction, factor_rows
from adaptry.adapters.methods.row_formula import FormulaFunction
from adaptry.adapters.spec import ExtraKind, ExtraWeight, ModuleKind, ModuleSpec
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

if TYPE_CHECKING:
    from torch import Tensor, dtype

_LAST_NAME = ".default"
_NAME_INSIDE = lazy_pattern(r"(?<=\.)(?P<owner>[^.]+)\.default(?=\.|$)")
_STEM = lazy_pattern(r"(?:\(\?P<path>\.\+\?\)\\\.)?(?P<stem>[a-z0-9]+_)")

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of each tensor of a module by role, including shared tensors."""


class ModuleSize(NamedTuple):
    """A module's sizes, from its tensors; 0 if they do not determine one (such as the fan_in of an IA3
    vector).
    """

    rank: int
    fan_in: int
    fan_out: int
    kind: ModuleKind = "linear"


class WeightSides(NamedTuple):
    """The base's weight that a module changes: outputs, inputs (in·k… for a flattened kernel) and the
    kernel.
    """

    fan_out: int
    fan_in: int
    kernel: tuple[int, ...] = ()


class ModuleTensors(Protocol):
    """The arguments of a change: the module's tensors as torch tensors, and facts about module and base."""

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
        """The tensor of a role, including a shared one: floats in float32, as PEFT holds them, and integers
        unchanged.
        """
        ...

    @property
    def dtype(self) -> dtype:
        """The dtype of the base's weight, in which some methods also hold their numbers."""
        ...

    @property
    def sides(self) -> Mapping[str, tuple[int, int]]:
        """(outputs, inputs) of every matrix of the base that the adapter changes, by its module's path."""
        ...

    def bias(self) -> Tensor | None:
        """The module's bias in the base [out], unchanged and in its stored dtype, or None."""
        ...

    @property
    def is_replaced(self) -> bool:
        """Whether the file has the module's whole weight, which PEFT loads in place of the base's."""
        ...

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """These arguments with other tensors for some roles, which need not be the file's."""
        ...

    def weight(self) -> Tensor:
        """The base's weight of the module, unchanged and in its stored dtype; for changes of a bias."""
        ...


ChangeFunction = Callable[["Tensor", ModuleTensors], "Tensor"]
"""`change(weight, parts)` returns a new weight with the same shape and dtype. `weight` is as stored, and must
not be written to.
"""

FactorsFunction = Callable[[ModuleTensors, int, int], "tuple[Tensor, Tensor]"]
"""`factors(parts, fan_out, fan_in)` returns up [fan_out, r] and down [r, fan_in] in float32. Their product is
the complete update of the weight as a matrix [out, in·k…], in whatever orientation it is stored.
"""

ShapesFunction = Callable[["Mapping[str, WeightSides]", AdapterConfig], Mapping[str, Shapes]]
"""`shapes(weights, config)` returns the shapes of tensors by path and role, given the adapted weights by
path.
"""

BaseAtLoad = Literal["update", "weight"]
"""What is computed from the base's weight before the file's tensors are loaded (`Method.base_at_load`)."""

LoraForm = Literal["itself", "exact", "given_base", "approximate", "no"]
"""Whether a method can be written as a LoRA: it is one; exactly; exactly for one base; approximately; not."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Names of tensors: `key_patterns`: pattern of the part of a key after the module's path → role. `shared`:
    pattern of a model-level name (after `base_model.`) → role. `prefix`: the part of a key before the
    module's path. `required_shared`: the shared roles without which the file is incomplete. `replaced`:
    pattern of a key that holds a full weight → its kind. Its groups are `path` and, unless it is the weight,
    `parameter`. `integer_roles`: roles of tensors with whole numbers. `untrained_roles`: pattern of roles
    whose tensors are drawn or copied from the base, and never trained. `recomputed_roles`: pattern of roles
    that PEFT reads from the file and also computes from the base at load. `empty_roles`: roles whose tensors
    have no elements in the module with this path if an adapter has this config.

    Sizes, and whether they fit a base: `names_modules`: whether a file with this config names the modules
    that it changes. `module_size`: a module's sizes from its shapes. It raises `KeyError`, `IndexError` or
    `ValueError` if they are not those of a complete module. `mismatch`: why a module does not fit a weight of
    the base, or why PEFT refuses it there, beyond what `module_size` shows. It ends a sentence that begins
    with the module. `cannot_adapt`: why PEFT raises when it applies the method to a weight with these sides,
    whatever the file contains. It ends such a sentence too. `shapes_in_model`: the shapes that PEFT gives
    tensors, by path (empty: shared) and role, if they depend on all adapted weights.

    Untrained modules: `products`: the products whose sum is the update of a module, each as patterns of the
    roles of its factors. A module changes nothing if each of its products has a factor that is all zeros.
    `ones`: pattern of the roles whose tensors must then be all ones. `base_numbers`: pattern of the roles of
    tensors that begin as numbers computed from the base's weight, such as its norms. If a module has no other
    change, only the base shows whether these numbers change it. `is_relative`: whether the tensors of an
    adapter with these traits begin as parts of the base's weight, or as vectors that cancel each other, so
    that zeros and ones show nothing. `may_cancel`: whether its products may be zero although no factor is.

    Changing weights: `weight` and `bias`: how the method changes them. `rows`: its change of a weight in
    blocks of rows, if it changes each row on its own. `formula`: the same as a formula, for which no torch is
    needed, if there is one; `bias_formula`: its change of a bias as one. If `weight` and `bias` are None, the
    method cannot be merged, and `unmergeable_hint` explains why, and what to do. `needs_base`: whether its
    change depends on the base's values. `base_at_load`: what PEFT computes from the base's own weight when it
    adds the adapter, also where the file replaces that weight afterwards: the update, or the whole new
    weight. `lora_form`: how its updates can be written as a LoRA; "no" if there is no exact way.
    `lora_form_of_variant`: the same for configs that differ from this. `factors`: its update as factors of a
    LoRA, if that is exact for every base. `unmergeable_reason`: why an adapter with this config cannot be
    merged. `check_installed`: raises `MissingDependency` if a package other than torch is missing that its
    change needs. `merge_difference`: how a merge into a weight of this shape differs from the live adapter,
    if it does. It ends a sentence. `tolerance`: how close a merge is to that of the method's own library.
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
    rows: RowChangeFunction | None = None
    formula: FormulaFunction | None = None
    bias: ChangeFunction | None = None
    bias_formula: FormulaFunction | None = None
    changes_bias: Callable[[ModuleSpec], bool] = lambda module: True
    unmergeable_hint: str = ""
    lora_form: LoraForm = "no"
    lora_form_of_variant: Callable[[AdapterConfig], LoraForm | None] = lambda config: None
    lora_rank: Callable[[ModuleSpec, AdapterConfig], int | None] = lambda module, config: None
    factors: FactorsFunction | None = None
    needs_base: bool = False
    base_at_load: BaseAtLoad | None = None
    integer_roles: frozenset[str] = frozenset()
    untrained_roles: str = ""
    products: tuple[tuple[str, ...], ...] = ()
    ones: str = ""
    base_numbers: str = ""
    is_relative: Callable[[Collection[str]], bool] = lambda traits: False
    may_cancel: Callable[[Collection[str]], bool] = lambda traits: False
    names_modules: Callable[[AdapterConfig], bool] = lambda config: True
    mismatch: Callable[[ModuleSpec, Shapes, AdapterConfig, WeightSides], str | None] = (
        lambda module, shapes, config, weight: None
    )
    cannot_adapt: Callable[[WeightSides, AdapterConfig], str | None] = lambda weight, config: None
    shapes_in_model: ShapesFunction | None = None
    recomputed_roles: str = ""
    empty_roles: Callable[[AdapterConfig, str], frozenset[str]] = lambda config, path: frozenset()
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
        """Whether the change that an adapter with this config makes depends on the base's values."""
        return self.needs_base or self.depends_on_base(config)

    def lora_form_for(self, config: AdapterConfig | None = None) -> LoraForm:
        """Whether adapters with this config can be written as a LoRA: for a matrix, at least
        approximately.
        """
        if config is not None:
            if self.unmergeable_reason(config):
                return "no"
            if (other := self.lora_form_of_variant(config)) is not None:
                return other
        return "approximate" if self.lora_form == "no" and self.weight is not None else self.lora_form

    def is_trained(self, role: str) -> bool:
        """Whether the tensors of a role are trained; others are stored to avoid computing them again."""
        return role not in self.integer_roles and not re.fullmatch(self.untrained_roles, role)

    def changes_nothing(self, tensors: Mapping[str, str], zeros: Set[str], ones: Set[str]) -> bool:
        """Whether a module with these tensors, names by role, leaves the model unchanged. `zeros` and `ones`
        are the names of the tensors that are all zeros and all ones. False if this cannot be determined.
        """
        return self._has_no_update(tensors, zeros, ones) and not _matching(self.base_numbers, tuple(tensors))

    def changes_by_base_numbers(self, tensors: Mapping[str, str], zeros: Set[str], ones: Set[str]) -> bool:
        """Whether such a module can change the model only by its `base_numbers`."""
        return self._has_no_update(tensors, zeros, ones) and bool(
            _matching(self.base_numbers, tuple(tensors))
        )

    def products_of(self, roles: Iterable[str]) -> tuple[tuple[tuple[str, ...], ...], ...]:
        """The products of a module with these roles, each as the roles of its factors."""
        return _held_products(self.products, tuple(roles))

    def _has_no_update(self, tensors: Mapping[str, str], zeros: Set[str], ones: Set[str]) -> bool:
        roles = tuple(tensors)
        multipliers = _matching(self.ones, roles)
        products = self.products_of(roles)
        if not products and not multipliers:
            return False
        return all(tensors[role] in ones for role in multipliers) and all(
            any(all(tensors[role] in zeros for role in factor) for factor in product) for product in products
        )

    def role(self, key: str) -> tuple[str, str] | None:
        """(module path, role) of a key without its prefix, or None if it is not one of the method's.

        PEFT loads an adapter as `default`, so a key may also contain that name where PEFT inserts it.
        """
        for written in self._spellings(key):
            for tail, role in self.key_patterns.items():
                if match := re.fullmatch(rf"(?P<path>.+?)\.{tail}", written):
                    rest = match.groupdict().get("rest")
                    return match["path"], f"{role}.{rest}" if rest else role
        return None

    def replacement_of(self, key: str, name: str, info: TensorInfo) -> ExtraWeight | None:
        """The full weight that `key` (`name` without its prefix) holds by this method's names, or None."""
        for written in self._spellings(key) if self.replaced else ():
            for pattern, kind in self.replaced.items():
                if match := re.fullmatch(pattern, written):
                    target = f"{match['path']}.{match.groupdict().get('parameter', 'weight')}"
                    return ExtraWeight(target=target, kind=kind, tensor=name, shape=info.shape)
        return None

    def _spellings(self, key: str) -> tuple[str, ...]:
        """The key, and the key without the adapter's name if that follows the part of a layer that the method
        adds: PEFT also accepts the names in the adapted model's own `state_dict`, and drops all others.
        """
        if ".default" not in key:
            return (key,)
        found = [match for match in _NAME_INSIDE.finditer(key) if match["owner"].startswith(self._stems)]
        if not found:
            return (key,)
        end = found[-1].end("owner")
        return (key, key[:end] + key[end + len(".default") :])

    @property
    def _stems(self) -> tuple[str, ...]:
        """The beginnings of the names of the parts that the method adds to a layer, such as `lora_`."""
        return _stems((*self.key_patterns, *self.replaced))

    def shared_role(self, name: str) -> str | None:
        """The role of a tensor that all modules share, or None. Its name may end with the adapter's name,
        like the names of modules; PEFT drops a key that has it anywhere else.
        """
        stem = name.removesuffix(_LAST_NAME) if self.key_patterns else name  # not those of prompts
        name = name if "." in stem else stem
        for pattern, role in self.shared.items():
            if match := re.fullmatch(pattern, name):
                rest = match.groupdict().get("rest")
                return f"{role}.{rest}" if rest else role
        return None


@lru_cache(maxsize=256)
def _held_products(
    products: tuple[tuple[str, ...], ...], roles: tuple[str, ...]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """The products of a module with these roles, each as the roles of its factors. The modules of an adapter
    have the same roles, so this is computed once.
    """
    factors = (tuple(_matching(factor, roles) for factor in product) for product in products)
    held = (tuple(factor for factor in product if factor) for product in factors)
    return tuple(product for product in held if product)


@lru_cache(maxsize=64)
def _stems(patterns: tuple[str, ...]) -> tuple[str, ...]:
    found = (_STEM.match(pattern) for pattern in patterns)
    return tuple(dict.fromkeys(match["stem"] for match in found if match))


@lru_cache(maxsize=256)
def _matching(pattern: str, roles: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(role for role in roles if re.fullmatch(pattern, role))


def add_delta(
    delta: Callable[[ModuleTensors, tuple[int, ...]], Tensor], *, rounding: Literal["once", "twice"] = "once"
) -> ChangeFunction:
    """The change made by a method that adds `delta(parts, shape)`: float32, in the weight's stored shape, as
    in PEFT.

    Rounded once: `W + Δ` in float32, rounded to W's dtype. Rounded twice: Δ is rounded to W's dtype first.
    """

    def change(weight: Tensor, parts: ModuleTensors) -> Tensor:
        update = delta(parts, tuple(weight.shape))
        if rounding == "twice":
            return weight + update.to(weight.dtype)
        return added(weight, update).to(weight.dtype)

    return change


def added(weight: Tensor, update: Tensor, kind: dtype | None = None) -> Tensor:
    """`weight` as float32, or `kind`, plus `update`: a new tensor, in the conversion's memory."""
    wide = weight.float() if kind is None else weight.to(kind)
    if wide is weight or update.dtype != wide.dtype or update.shape != wide.shape:
        return wide + update
    return wide.add_(update)


def factor_product(factors: FactorsFunction) -> Callable[[ModuleTensors, tuple[int, ...]], Tensor]:
    """The update of a matrix from a method's factors, up @ down, transposed for a Conv1D. An argument for
    `add_delta`.
    """

    def delta(parts: ModuleTensors, shape: tuple[int, ...]) -> Tensor:
        is_transposed = parts.orientation == "conv1d"
        up, down = factors(parts, *(shape[::-1] if is_transposed else shape))
        return (up @ down).T if is_transposed else up @ down

    return delta


def product_rows(factors: FactorsFunction) -> RowChangeFunction:
    """The change `add_delta(factor_product(factors))` by rows."""
    return factor_rows(factors, lambda stored: add_delta(factor_product(stored)))


def common_number(*numbers: int) -> int:
    """The common value of `numbers`, for a `module_size` whose tensors must agree. Raises `ValueError`."""
    if len(set(numbers)) != 1:
        found = " and ".join(str(number) for number in dict.fromkeys(numbers))
        raise ValueError(f"its tensors and the config disagree: {found}")
    return numbers[0]


def trained_rank(config: AdapterConfig, rank: int, default: int = 8) -> int:
    """`rank`, if the config (or PEFT's default) or `rank_pattern` has it. Raises `ValueError` otherwise."""
    if rank != config.rank(default=default) and rank not in config.pattern_values("rank_pattern").values():
        declared = config.rank(default=default)
        raise ValueError(f"the tensors have rank {rank}, but the config declares {declared}")
    return rank
