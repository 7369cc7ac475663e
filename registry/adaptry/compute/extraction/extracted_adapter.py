"""An extracted LoRA as a lazy adapter: the change of each matrix is read, decomposed and written in turn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from adaptry.adapters.methods.extras import PREFIX
from adaptry.compute.extraction.config import config_of
from adaptry.compute.extraction.plan import ExtractPlan
from adaptry.compute.extraction.target_choice import TargetChoice
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter
from adaptry.compute.lazy_adapters.lora import LoraOptions, build_lora
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import is_folder

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_HEAD = "lm_head"


def build_extracted_adapter(plan: ExtractPlan, base_name: str | None = None) -> LazyAdapter:
    """The lazy adapter. `base_name` is the base's name or folder, for its config."""
    modules = _ExtractedModules(plan)
    made = build_lora((), _recipe(plan), modules.sites, modules.compute, LoraOptions(plan.recipe.dtype))
    names = {_key(each, plan): each for each in plan.whole}
    fields = config_of(plan, base_name)
    if modules.heads:
        fields |= {
            "ensure_weight_tying": True,
            "target_modules": sorted({*fields["target_modules"], *modules.heads}),
        }
    return replace(
        made,
        names=(*made.names, *names),
        compute=lambda: chain(made.compute(), _whole(plan, names), _omitted_modules(plan), _unchanged(plan)),
        config=lambda shapes: {**made.config(shapes), **fields},
        base=BaseClaim(id=plan.base_record.id, name=None if is_folder(base_name or ".") else base_name),
        extra_files={},
        notes=plan.notes,
    )


@dataclass(frozen=True)
class _ExtractedModules:
    plan: ExtractPlan

    @property
    def sites(self) -> list[WeightSite]:
        return [*self._choices, *self.heads.values()]

    @property
    def _choices(self) -> dict[WeightSite, TargetChoice]:
        return {each.site: each for each in self.plan.lora if each.site is not None}

    @property
    def heads(self) -> dict[str, WeightSite]:
        """The output heads of changed tied embeddings, for which PEFT has the transposed factors."""
        choice = next((each for each in self.plan.lora if each.has_head), None)
        if choice is None or choice.site is None:
            return {}
        return {_HEAD: WeightSite(_HEAD, "linear", choice.site.fan_in, choice.site.fan_out)}

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The float32 factors [..., out, k] and [..., k, in] of the change at `site`, and their loss."""
        from adaptry.compute.extraction.decomposition import decompose_delta
        from adaptry.compute.extraction.diff_scan import CheckpointPair
        from adaptry.compute.lazy_adapters.rounding import check_values
        from adaptry.compute.tensors.lowrank import Factors

        if site == self.heads.get(site.path):
            embedding = next(own for own, each in self._choices.items() if each.has_head)
            update, _ = self.compute(embedding)
            return Factors(update.down.mT.contiguous(), update.up.mT.contiguous()), {}
        choice = self._choices[site]
        with CheckpointPair(self.plan.base, self.plan.tuned) as sides:
            delta = check_values(sides.delta(choice.weight), f"the change of {choice.weight.name}")
        return decompose_delta(delta, choice, self.plan.recipe, self._seed(site))

    def _seed(self, site: WeightSite) -> int:
        """A seed for each module, independent of the other modules."""
        return self.plan.recipe.seed * 2_147_483_647 % (1 << 63) ^ zlib.crc32(site.key.encode())


def _whole(plan: ExtractPlan, names: Mapping[str, TargetChoice]) -> Iterator[ComputedModule]:
    from adaptry.compute.extraction.diff_scan import CheckpointPair

    with CheckpointPair(plan.base, plan.tuned) as sides:
        for key, each in names.items():
            tensor: Tensor = sides.tuned(each.weight)
            yield ComputedModule(each.weight.name, {key: tensor})


def _unchanged(plan: ExtractPlan) -> Iterator[ComputedModule]:
    """No modules. Raises `Invalid` if a checkpoint changed while it was read."""
    plan.base.check_unchanged()
    plan.tuned.check_unchanged()
    yield from ()


def _omitted_modules(plan: ExtractPlan) -> Iterator[ComputedModule]:
    """The modules that are left out, with the energy that is lost."""
    from adaptry.compute.extraction.diff_scan import CheckpointPair
    from adaptry.compute.tensors.krylov import energy_of

    with CheckpointPair(plan.base, plan.tuned) as sides:
        for each in plan.left_out:
            weight = each.weight
            is_alike = weight.base is not None and weight.base.shape == weight.shape
            change = sides.delta(weight) if is_alike else sides.tuned(weight)
            energy = energy_of(change)
            yield ComputedModule(weight.name, {}, {"energy": energy, "lost": energy, "rank": 0})


def _key(each: TargetChoice, plan: ExtractPlan) -> str:
    """The bias's name in the file: for a module with a LoRA, PEFT has the bias one level deeper."""
    weight = each.weight
    has_lora = each.kind == "bias" and any(other.weight.path == weight.path for other in plan.lora)
    return f"{PREFIX}{weight.path}.{'base_layer.' if has_lora else ''}{weight.parameter}"


def _recipe(plan: ExtractPlan) -> Json:
    """The canonical recipe, with the checkpoints by their ids."""
    return {
        "operation": "extract",
        "base": str(plan.base_record.id),
        "finetuned": str(plan.tuned_record.id),
        **plan.recipe.model_dump(mode="json"),
    }
