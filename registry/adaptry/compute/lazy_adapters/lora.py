"""Builds a plain LoRA as a lazy adapter: from sites to a file and config in PEFT's layout, with scale 1.

`lora_alpha` equals `r`, and each alpha pattern equals its rank pattern, so engines that read the patterns and
engines that ignore them get the same scale. With `uniform` all modules get one rank (padded with zeros), for
engines that take the scale from the config and the rank from the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.target_parameters import in_module_order
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.sites import WeightSite, lora_tensors, tensor_names
from adaptry.compute.lazy_adapters.whole_weights import NO_WHOLE_WEIGHTS, WholeWeights
from adaptry.core.errors import CheckFailed
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import is_folder

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

    Computed = tuple["Factors", Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """Options of a LoRA: `dtype` as in safetensors; `uniform`: the common rank of all modules (0: the largest
    result).
    """

    dtype: str = "F32"
    uniform: int | None = None


_DEFAULTS = LoraOptions()


def build_lora(
    parents: Sequence[ParentAdapter],
    recipe: Json,
    sites: Sequence[WeightSite],
    compute: Callable[[WeightSite], Computed],
    result: LoraOptions = _DEFAULTS,
    whole: WholeWeights = NO_WHOLE_WEIGHTS,
    notes: Sequence[str] = (),
) -> LazyAdapter:
    """A lazy adapter whose modules come from `compute`, which returns factors and figures of a site, in any
    order.
    """
    ordered = sorted(sites, key=lambda site: site.key)
    spelled = _paths_in_file(ordered)
    names = [name for site in ordered for name in tensor_names(site, spelled[site])]
    maker = _LoraModules(compute, ordered, spelled, result, whole)
    return LazyAdapter(
        parents=tuple(parents),
        recipe=recipe,
        names=(*names, *whole.names),
        compute=maker.modules,
        config=lambda shapes: {**_config(parents, ordered, spelled, shapes), **whole.fields},
        base=base_claim(parents),
        extra_files=whole.extra_files,
        notes=(*notes, *whole.notes),
    )


@dataclass(frozen=True)
class _LoraModules:
    compute: Callable[[WeightSite], Computed]
    sites: Sequence[WeightSite]
    paths: Mapping[WeightSite, str]
    result: LoraOptions
    whole: WholeWeights

    def modules(self) -> Iterator[ComputedModule]:
        from adaptry.compute.lazy_adapters.rounding import add_rounding_error, check_fits, round_factors
        from adaptry.compute.tensors.dtypes import torch_dtype
        from adaptry.compute.tensors.lowrank import pad_rank

        dtype = torch_dtype(self.result.dtype)
        rank = self.result.uniform or 0
        computed: Iterator[tuple[WeightSite, Computed]] = ((site, self.compute(site)) for site in self.sites)
        if self.result.uniform == 0:
            held = list(
                computed
            )  # the largest rank is known only at the end; an adapter's factors fit in memory
            rank = max((update.rank for _, (update, _) in held), default=0)
            computed = iter(held)
        for site, (update, figures) in computed:
            whole = update.with_unit_scale()
            written = round_factors(whole, self.result.dtype)
            check_fits(written, site.key, self.result.dtype)
            final_figures = add_rounding_error(figures, whole, written)
            yield ComputedModule(
                site.key, lora_tensors(site, pad_rank(written, rank), self.paths[site], dtype), final_figures
            )
        for name, tensor in self.whole.tensors():
            yield ComputedModule(name, {name: tensor})


def base_claim(parents: Sequence[ParentAdapter]) -> BaseClaim | None:
    """The base of the result: the first parent's known base, with the name in that parent's config."""
    name = next((base for parent in parents if (base := _base_name(parent.adapter))), None)
    known = next((parent.base.id for parent in parents if parent.base is not None), None)
    return BaseClaim(id=known, name=name) if known or name else None


def _base_name(adapter: Adapter) -> str | None:
    name = adapter.config.base_name
    return None if name is None or is_folder(name) or len(name) > 512 else name


def _paths_in_file(sites: Sequence[WeightSite]) -> dict[WeightSite, str]:
    """Paths in the file: if a module has several parameters, PEFT nests earlier ones deeper."""
    spelled = {site: site.path for site in sites if site.parameter is None}
    modules: dict[str, list[WeightSite]] = {}
    for site in sites:
        if site.parameter is not None:
            modules.setdefault(site.path, []).append(site)
    for path, found in modules.items():
        ordered = in_module_order({str(site.parameter) for site in found})
        if not ordered:
            raise CheckFailed(
                f"the order in which {path} has its parameters"
                f" {', '.join(sorted(str(s.parameter) for s in found))} is unknown here, but PEFT's layout"
                " depends on it; combine adapters of one parameter at a time"
            )
        for site in found:
            depth = len(ordered) - 1 - ordered.index(str(site.parameter))
            spelled[site] = path + ".base_layer" * depth
    return spelled


def _config(
    parents: Sequence[ParentAdapter],
    sites: Sequence[WeightSite],
    spelled: Mapping[WeightSite, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> Json:
    """`adapter_config.json` with the fields that PEFT 0.21 reads for a plain LoRA."""
    first = parents[0].adapter.config.fields if parents else {}
    ranks = {site: shapes[tensor_names(site, spelled[site])[0]][0] // site.experts for site in sites}
    rank = max(ranks.values())
    pattern = {site.key: own for site, own in ranks.items() if own != rank}
    modules = [site for site in sites if site.parameter is None]
    return {
        "peft_type": "LORA",
        "task_type": first.get("task_type"),
        "auto_mapping": first.get("auto_mapping"),
        "base_model_name_or_path": first.get("base_model_name_or_path"),
        "revision": first.get("revision"),
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "target_modules": _targets(parents, modules),
        "target_parameters": sorted(site.key for site in sites if site.parameter is not None) or None,
        "fan_in_fan_out": first.get("fan_in_fan_out") is True,
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
    }


_NARROWING = ("layers_to_transform", "exclude_modules", "target_parameters")


def _targets(parents: Sequence[ParentAdapter], modules: Sequence[WeightSite]) -> list[str]:
    """The parents' short names if they select the same modules (engines expect these), else full paths."""
    short: set[str] = set()
    for parent in parents:
        fields = parent.adapter.config.fields
        names = fields.get("target_modules")
        if not isinstance(names, list) or any(fields.get(key) not in (None, [], "") for key in _NARROWING):
            return sorted(site.path for site in modules)
        short |= set(AdapterConfig(fields).names("target_modules"))
    named = {site.path for site in modules}
    held = {module.path for parent in parents for module in parent.adapter.spec.modules}
    is_whole = named == held and all(
        any(path == name or path.endswith(f".{name}") for path in named) for name in short
    )
    return sorted(short) if is_whole else sorted(named)
