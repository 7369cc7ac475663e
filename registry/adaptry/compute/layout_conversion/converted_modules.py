"""An adapter's modules in another layout: renamed, split into experts, or fused from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.target_parameters import in_module_order
from adaptry.adapters.spec import ModuleSpec
from adaptry.adapters.transformers_conversion import LoadedTensor
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.compute.layout_conversion.module_names import LayoutVersion, LoadedNames
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from torch import Tensor

    Read = Callable[[str], Tensor]


@dataclass(frozen=True, slots=True)
class ConvertedModule:
    """A module of the result.

    `path` is its name in the file; `rank` and `scale` are those of one expert; `parameter` is the fused
    parameter. It is made from `parts`: modules of the parent, each with its position. With one part and no
    `whole`, it is only renamed. If `is_padded`, its factors have zeros up to `rank`.
    """

    path: str
    rank: int
    scale: float
    parts: tuple[TargetTensor, ...]
    parameter: str | None = None
    whole: LoadedTensor | None = None
    is_padded: bool = False

    @property
    def name(self) -> str:
        """The name that patterns in the config match."""
        bare = self.path.replace(".base_layer", "")
        return f"{bare}.{self.parameter}" if self.parameter else bare

    @property
    def is_unchanged(self) -> bool:
        module = self.parts[0].module
        is_same = (module.path, module.parameter) == (self.path, self.parameter)
        return len(self.parts) == 1 and is_same and not self.is_expert

    @property
    def is_expert(self) -> bool:
        """Whether it is one matrix of one expert, taken out of the fused factors."""
        return self.parts[0].expert is not None and self.parameter is None

    def is_router(self, weights: LoadedNames) -> bool:
        parent = self.parts[0].module
        return self.parameter is None and weights.is_router(f"{parent.path}.weight")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its tensors in the file."""
        if self.whole is None and not self.is_expert:
            return tuple(self._renamed(name) for name in self.parts[0].module.tensors.values())
        return tuple(f"{PREFIX}{self.path}.lora_{factor}.weight" for factor in "AB")

    def tensors(self, read: Read) -> Mapping[str, Tensor]:
        if self.whole is None and not self.is_expert and not self.is_padded:
            return {self._renamed(name): read(name) for name in self.parts[0].module.tensors.values()}
        from adaptry.compute.layout_conversion import experts

        if self.whole is None and not self.is_expert:
            pair = _pair(self.parts[0].module, read)
        elif self.whole is None:
            expert = self.parts[0].expert
            assert expert is not None
            pair = experts.split_expert(
                _pair(self.parts[0].module, read), expert.index, expert.count, expert.rows
            )
        else:
            pair = self._fused(self.whole, read)
        if self.is_padded:
            pair = experts.padded(pair, self.rank)
        return dict(zip(self.names, pair, strict=True))

    def _renamed(self, name: str) -> str:
        return name.replace(f"{PREFIX}{self.parts[0].module.path}.", f"{PREFIX}{self.path}.", 1)

    def _fused(self, whole: LoadedTensor, read: Read) -> tuple[Tensor, Tensor]:
        from adaptry.compute.layout_conversion import experts

        count, rows, width = whole.shape
        stacked = len(whole.parts) // count
        found: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in range(count)]
        for target in self.parts:
            index, place = divmod(whole.parts.index(target.tensor), stacked)
            down, up = _pair(target.module, read)
            ratio = target.module.scale / self.scale
            found[index][place] = (down, up if ratio == 1.0 else (up.float() * ratio).to(up.dtype))
        return experts.fuse_experts(found, [rows // stacked] * stacked, width)


def convert_modules(
    label: str, adapter: Adapter, module_map: ModuleMap, weights: LoadedNames, to: LayoutVersion
) -> tuple[ConvertedModule, ...]:
    """Every module of the result, in the order of their names. Raises `Unsupported`, `CheckFailed`."""
    together: dict[str, list[TargetTensor]] = {}
    single: list[ConvertedModule] = []
    for target in module_map.placed:
        whole = weights.by_part.get(target.tensor)
        is_part = whole is not None and len(whole.parts) > 1
        if is_part and target.expert is None and to == "transformers5":
            _check_plain(label, adapter, target.module)
            together.setdefault(_renamed_path(target, weights, to, ""), []).append(target)
        elif target.expert is not None and to == "transformers4":
            _check_plain(label, adapter, target.module)
            module = target.module
            path = _renamed_path(target, weights, to, ".weight")
            single.append(ConvertedModule(path, module.rank // target.expert.count, module.scale, (target,)))
        elif target.expert is None or target.expert.index == target.expert.rows[0] == 0:
            single.append(_renamed(target, weights, to))
    if to == "transformers4":
        single = _with_one_rank(single, weights)
    fused = [_put_together(name, parts, weights) for name, parts in together.items()]
    return tuple(sorted([*single, *_nested(fused)], key=lambda module: module.name))


def _renamed(target: TargetTensor, weights: LoadedNames, to: LayoutVersion) -> ConvertedModule:
    """A module that remains a single one; it is for the whole parameter if its experts are stored
    separately.
    """
    module = target.module
    experts = target.expert.count if target.expert else 1
    path, parameter = module.path, module.parameter
    if target.expert is None:
        path = _renamed_path(target, weights, to, ".weight")
        if (
            module.kind == "parameter"
            and to == "transformers4"
            and weights.is_router(f"{module.path}.weight")
        ):
            parameter = None  # the linear layer that it was
        elif module.kind == "parameter":
            path = module.path  # a parameter that is stored as one has the same name in both
    return ConvertedModule(path, module.rank // experts, module.scale, (target,), parameter)


def _with_one_rank(modules: list[ConvertedModule], weights: LoadedNames) -> list[ConvertedModule]:
    """The modules, with one rank for all experts and routers. PEFT 0.19 and later fuse them, with the rank
    and alpha that the config has as defaults; patterns with the names of single experts are not read.
    """
    fused = [module for module in modules if module.is_expert or module.is_router(weights)]
    if not any(module.is_expert for module in fused):
        return modules
    rank = max(module.rank for module in fused)
    return [
        replace(module, rank=rank, is_padded=True) if module in fused and module.rank < rank else module
        for module in modules
    ]


def _renamed_path(target: TargetTensor, weights: LoadedNames, to: LayoutVersion, end: str) -> str:
    module = target.module
    known = target.expert.parameter if target.expert else f"{module.path.replace('.base_layer', '')}.weight"
    return weights.rename(known, target.tensor, to).removesuffix(end)


def _put_together(name: str, parts: list[TargetTensor], weights: LoadedNames) -> ConvertedModule:
    whole = weights.by_part[parts[0].tensor]
    stacked = len(whole.parts) // whole.shape[0]
    ranks: dict[int, int] = {}
    for target in parts:
        place = whole.parts.index(target.tensor) % stacked
        ranks[place] = max(ranks.get(place, 0), target.module.rank)
    path, _, parameter = name.rpartition(".")
    return ConvertedModule(path, sum(ranks.values()), parts[0].module.scale, tuple(parts), parameter, whole)


def _nested(fused: list[ConvertedModule]) -> list[ConvertedModule]:
    """The parameters of one module, each with as many `base_layer` parts in its path as PEFT adds."""
    by_path: dict[str, list[ConvertedModule]] = {}
    for module in fused:
        by_path.setdefault(module.path, []).append(module)
    nested = []
    for path, modules in by_path.items():
        ordered = in_module_order({str(module.parameter) for module in modules})
        if not ordered:
            raise CheckFailed(
                f"the order of the parameters of {path} is unknown here, but PEFT's layout depends on it"
            )
        for module in modules:
            depth = len(ordered) - 1 - ordered.index(str(module.parameter))
            nested.append(replace(module, path=path + ".base_layer" * depth))
    return nested


def _check_plain(label: str, adapter: Adapter, module: ModuleSpec) -> None:
    """Raises `Unsupported` unless it has only plain factors, which can be split or fused."""
    if adapter.spec.method != "lora" or module.tensors.keys() != {"A", "B"}:
        raise Unsupported(
            f"{label}: {module.path} is not a plain LoRA ({adapter.spec.method},"
            f" {', '.join(sorted(module.tensors))}), and PEFT supports no other on fused experts: train it"
            " again in the new layout"
        )


def _pair(module: ModuleSpec, read: Read) -> tuple[Tensor, Tensor]:
    return read(module.tensors["A"]), read(module.tensors["B"])
