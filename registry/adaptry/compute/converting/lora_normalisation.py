"""A LoRA of any spelling as a plain one: rsLoRA, rank and alpha patterns, block-diagonal factors folded in.

Where all modules have one scale it is written as `lora_alpha` and the factors stay as they are, bit for bit;
else each scale goes into its `lora_B`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.spec import ModuleSpec
from adaptry.compute.converting.options import ConvertOptions
from adaptry.compute.lazy_adapters.sites import WeightSite, lora_factors, site_of

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

_FACTORS = ("A", "B", "embedding_A", "embedding_B")


@dataclass(frozen=True, slots=True)
class NormalisedLora:
    """A LoRA about to be written plainly. `common_scale`: that of all modules, which alpha keeps; None: each
    goes into its factors. `dtype`: in which it is written."""

    adapter: Adapter
    options: ConvertOptions
    modules: Mapping[WeightSite, ModuleSpec]
    common_scale: float | None
    dtype: str

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The site's factors, less the common scale, and its figures."""
        from adaptry.compute.converting.truncation import RankLimit, truncate
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
    """Whether its factors are all that it does to weights."""
    config = adapter.config
    return adapter.spec.method == "lora" and not METHODS["lora"].needs_base_for(config)


def normalise_lora(adapter: Adapter, options: ConvertOptions) -> NormalisedLora:
    """Raises `CheckFailed` where the file does not tell which parameter it changes."""
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
    """What was folded, and where the scale is now."""
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
            f"the factors are as they were; all modules have the scale {made.common_scale:g}, which is"
            " lora_alpha over r"
        )
    else:
        yield "each module's scale is in its lora_B, so that lora_alpha over r is 1"
