"""The draft of an extracted LoRA: each matrix's change read, decomposed and written, one after the other."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from adaptry.adapters.methods.extras import PREFIX
from adaptry.compute.extracting.config import config_of
from adaptry.compute.extracting.plan import ExtractPlan
from adaptry.compute.extracting.target_choice import Holding
from adaptry.compute.lazy_adapters.lazy_adapter import Draft, Json, Made
from adaptry.compute.lazy_adapters.lora import Result, lora_draft
from adaptry.compute.lazy_adapters.sites import Site
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import is_folder

if TYPE_CHECKING:
    from torch import Tensor

    from adaptry.compute.tensors.lowrank import Factors

_HEAD = "lm_head"


def draft(plan: ExtractPlan, base_name: str | None = None) -> Draft:
    """What the sinks take. `base_name`: what the base is called, or its folder, for whoever loads it."""
    computing = _Computing(plan)
    made = lora_draft((), _recipe(plan), computing.sites, computing.compute, Result(plan.recipe.dtype))
    names = {_key(each, plan): each for each in plan.whole}
    fields = config_of(plan, base_name)
    if computing.heads:
        fields |= {
            "ensure_weight_tying": True,
            "target_modules": sorted({*fields["target_modules"], *computing.heads}),
        }
    return replace(
        made,
        names=(*made.names, *names),
        make=lambda: chain(made.make(), _whole(plan, names), _unheld(plan)),
        config=lambda shapes: {**made.config(shapes), **fields},
        base=BaseClaim(id=plan.base_record.id, name=None if is_folder(base_name or ".") else base_name),
        beside={},
        notes=plan.notes,
    )


@dataclass(frozen=True)
class _Computing:
    plan: ExtractPlan

    @property
    def sites(self) -> list[Site]:
        return [*self._held, *self.heads.values()]

    @property
    def _held(self) -> dict[Site, Holding]:
        return {each.site: each for each in self.plan.lora if each.site is not None}

    @property
    def heads(self) -> dict[str, Site]:
        """The other end of a tied embedding that is changed: PEFT has the transposed factors there."""
        held = next((each for each in self.plan.lora if each.has_head), None)
        if held is None or held.site is None:
            return {}
        return {_HEAD: Site(_HEAD, "linear", held.site.fan_in, held.site.fan_out)}

    def compute(self, site: Site) -> tuple[Factors, Mapping[str, float]]:
        """The factors of the change at `site` and what they lose."""
        from adaptry.compute.extracting.decomposition import factors_of
        from adaptry.compute.extracting.diff_scan import Sides
        from adaptry.compute.lazy_adapters.rounding import check_values
        from adaptry.compute.tensors.lowrank import Factors

        if site == self.heads.get(site.path):
            embedding = next(own for own, each in self._held.items() if each.has_head)
            update, _ = self.compute(embedding)
            return Factors(update.down.mT.contiguous(), update.up.mT.contiguous()), {}
        held = self._held[site]
        with Sides(self.plan.base, self.plan.tuned) as sides:
            delta = check_values(sides.delta(held.weight), f"the change of {held.weight.name}")
        return factors_of(delta, held, self.plan.recipe, self._seed(site))

    def _seed(self, site: Site) -> int:
        """One of its own for each module, whatever else is extracted."""
        return self.plan.recipe.seed * 2_147_483_647 % (1 << 63) ^ zlib.crc32(site.key.encode())


def _whole(plan: ExtractPlan, names: Mapping[str, Holding]) -> Iterator[Made]:
    from adaptry.compute.extracting.diff_scan import Sides

    with Sides(plan.base, plan.tuned) as sides:
        for key, each in names.items():
            tensor: Tensor = sides.tuned(each.weight)
            yield Made(each.weight.name, {key: tensor})


def _unheld(plan: ExtractPlan) -> Iterator[Made]:
    """What is left out, with the energy that is lost by it."""
    from adaptry.compute.extracting.diff_scan import Sides
    from adaptry.compute.tensors.randomised import energy_of

    with Sides(plan.base, plan.tuned) as sides:
        for each in plan.unheld:
            weight = each.weight
            is_alike = weight.base is not None and weight.base.shape == weight.shape
            change = sides.delta(weight) if is_alike else sides.tuned(weight)
            energy = energy_of(change)
            yield Made(weight.name, {}, {"energy": energy, "lost": energy, "rank": 0})


def _key(each: Holding, plan: ExtractPlan) -> str:
    """Its name in the file: PEFT has the bias of a module with a LoRA one level deeper."""
    weight = each.weight
    has_lora = each.kind == "bias" and any(other.weight.path == weight.path for other in plan.lora)
    return f"{PREFIX}{weight.path}.{'base_layer.' if has_lora else ''}{weight.parameter}"


def _recipe(plan: ExtractPlan) -> Json:
    """Canonical: the checkpoints by their ids."""
    return {
        "operation": "extract",
        "base": str(plan.base_record.id),
        "finetuned": str(plan.tuned_record.id),
        **plan.recipe.model_dump(mode="json"),
    }
