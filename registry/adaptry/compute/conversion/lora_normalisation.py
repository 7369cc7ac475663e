"""Rewrites any form of LoRA as a plain one: folds in rsLoRA, rank and alpha patterns, block-diagonal factors.

If all modules have the same scale, it is written as `lora_alpha` and the factors are unchanged, bit for bit.
Otherwise each scale is multiplied into its `lora_B`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.lazy_adapters.sites import WeightSite, lora_factors, site_of
from adaptry.core.lazy_dataclass import dataclass

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

_FACTORS = ("A", "B", "embedding_A", "embedding_B")


@dataclass(frozen=True, slots=True)
class NormalisedLora:
    """A LoRA that will be written in plain form. `common_scale` is the scale of all modules, which alpha
    expresses; None: each scale is in the factors. `dtype` is that of the file.
    """

    adapter: Adapter
    options: ConvertOptions
    modules: Mapping[WeightSite, ModuleSpec]
    common_scale: float | None
    dtype: str

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The site's float32 factors [..., out, r] and [..., r, in] without the common scale, and its
        figures."""
        from adaptry.compute.conversion.truncation import RankLimit, truncate
        from adaptry.compute.lazy_adapters.rounding import check_values, measure_error, round_factors
        from adaptry.compute.tensors.lowrank import Factors

        own = check_values(lora_factors(self.adapter, self.modules[site]), site.key)
        if self.common_scale is not None:
            own = Factors(own.up, own.down)
        made = round_factors(truncate(own, RankLimit(self.options.rank, self.options.energy)), self.dtype)
        square = 1.0 if self.common_scale is None else self.common_scale**2
        figures = measure_error(own, made)
        return made, {**figures, "energy": figures["energy"] * square, "lost": figures["lost"] * square}


def is_plain(adapter: Adapter) -> bool:
    """Whether the LoRA's factors are its only effect on weights."""
    config = adapter.config
    return adapter.spec.method == "lora" and not METHODS["lora"].needs_base_for(config)


def normalise_lora(adapter: Adapter, options: ConvertOptions) -> NormalisedLora:
    """The plain form of a LoRA. Raises `CheckFailed` if the file does not determine which parameter a module
    changes.
    """
    modules = {site_of(adapter, module): module for module in adapter.spec.modules}
    scales = {module.scale for module in modules.values()}
    is_narrowed = options.rank is not None or options.energy is not None
    has_common = len(scales) == 1 and min(scales) > 0 and not is_narrowed
    stored = {
        adapter.tensors[name].dtype
        for module in modules.values()
        for role, name in module.tensors.items()
        if role in _FACTORS
    }
    kept = stored.pop() if has_common and len(stored) == 1 else "F32"
    return NormalisedLora(
        adapter, options, modules, scales.pop() if has_common else None, options.dtype or kept
    )


def normalisation_notes(made: NormalisedLora) -> Iterator[str]:
    """Notes about the features that were folded, and where the scale is now."""
    fields = made.adapter.config.fields
    words = [
        word
        for key, word in (
            ("use_rslora", "rsLoRA's scale"),
            ("rank_pattern", "rank_pattern"),
            ("alpha_pattern", "alpha_pattern"),
            ("use_bdlora", "block-diagonal factors"),
        )
        if fields.get(key)
    ]
    if words:
        yield f"folded in: {', '.join(words)}"
    if made.common_scale is not None:
        yield (
            f"the factors are unchanged; all modules have the scale {made.common_scale:g}, which is"
            " lora_alpha / r"
        )
    else:
        yield "each module's scale is in its lora_B, so that lora_alpha / r is 1"
