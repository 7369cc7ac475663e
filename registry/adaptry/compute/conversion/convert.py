"""Converts an adapter to a plain LoRA, if a LoRA can represent its updates.

There are three ways. A LoRA's scales are folded; a method that is exactly a LoRA gives its factors; for all
others, the update is computed densely, one weight at a time, and approximated by the closest LoRA. Parts that
a LoRA cannot represent are refused, or left out on request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.plain_lora import plain_reason
from adaptry.compute.conversion.base_shapes import ConversionBase, check_conversion_base
from adaptry.compute.conversion.biases import BiasDeltas, bias_deltas, changes_biases
from adaptry.compute.conversion.delta import (
    MethodDeltas,
    is_factored,
    known_rank,
    needs_base_weights,
    open_method_deltas,
    own_weight,
)
from adaptry.compute.conversion.lora_normalisation import is_plain, normalisation_notes, normalise_lora
from adaptry.compute.conversion.options import ConvertOptions
from adaptry.compute.conversion.weight_deltas import ChangedWeight, changed_weights
from adaptry.compute.lazy_adapters.deltas import refuse_unclaimed
from adaptry.compute.lazy_adapters.lazy_adapter import ComputedModule, Json, LazyAdapter, ParentAdapter
from adaptry.compute.lazy_adapters.lora import LoraOptions, build_lora
from adaptry.compute.lazy_adapters.parent_on_base import parent_as_peft_reads
from adaptry.compute.lazy_adapters.sites import WeightSite
from adaptry.compute.lazy_adapters.whole_weights import choose_whole_weights
from adaptry.compute.merging.weighted_adapter import WeightedAdapter, refuse_unmergeable
from adaptry.core.display import format_count
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import BaseClaim

if TYPE_CHECKING:
    from adaptry.compute.tensors.lowrank import Factors

_WITHOUT_BASE = (
    "without a base, every module is assumed to be a Linear: if one is a convolution, pass the base with"
    " --base"
)


def convert(
    parent: ParentAdapter, options: ConvertOptions, base: ConversionBase | None = None
) -> LazyAdapter:
    """A plain LoRA with the effect of `parent`, on `base` if it is given.

    Raises `Unsupported` (a method or layout that cannot become a LoRA) and `CheckFailed` (the base is needed
    and missing, a rank must be chosen, or biases that a LoRA cannot represent), each with a remedy.
    """
    refuse_unconvertible(parent)
    parent = parent_as_peft_reads(parent, base.record if base else None)
    refuse_unclaimed(parent)
    notes = check_conversion_base(parent, base, options.other_base) if base else []
    if base and parent.base is None and needs_base_values(parent, options):
        notes.append(
            f"assumed, not checked: this is the base of {parent.label}. No registry has its fingerprint"
        )
    convert_with = _fold if is_plain(parent.adapter) else _compute
    adapter, changes = convert_with(parent, options, base, notes)
    biases = None if options.drop_bias else bias_deltas(parent, changes, base)
    if options.drop_bias and changes_biases(parent):
        adapter = replace(
            adapter, notes=(*adapter.notes, "left out, as requested: the biases that the adapter changes")
        )
    return _with_biases(adapter, biases) if biases else adapter


def needs_base_values(parent: ParentAdapter, options: ConvertOptions) -> bool:
    """Whether the values of the base's weights are needed, and not only their shapes."""
    has_biases = METHODS.get(parent.adapter.spec.method) is not None and changes_biases(parent)
    return (has_biases and not options.drop_bias) or (
        parent.adapter.spec.method in METHODS and needs_base_weights(parent)
    )


def refuse_unconvertible(parent: ParentAdapter) -> None:
    """Raises `Unsupported`, `CheckFailed` for an adapter whose updates of matrices cannot be computed."""
    adapter, label = parent.adapter, parent.label
    if adapter.format is not PEFT:
        raise Unsupported(
            f"{label} is in the layout of {adapter.format.tool}: convert it to PEFT's first"
            f" (`adaptry convert {label} -o ./peft`), and then convert the result"
        )
    refuse_unmergeable(WeightedAdapter(adapter, 1.0, label, parent.base))
    if "layer_replication" in adapter.spec.traits:
        raise Unsupported(
            f"{label} renumbers the layers of its base (layer_replication),"
            " which a plain LoRA cannot: merge it instead"
        )
    if not adapter.spec.modules or METHODS[adapter.spec.method].weight is None:
        raise Unsupported(
            f"{label} is {METHODS[adapter.spec.method].title} and updates no matrix, so a LoRA cannot"
            " represent"
            " it: merge it instead"
        )


_Conversion = tuple[LazyAdapter, Sequence[ChangedWeight]]


def _fold(
    parent: ParentAdapter, options: ConvertOptions, base: ConversionBase | None, notes: Sequence[str]
) -> _Conversion:
    made = normalise_lora(parent.adapter, options)
    needs_biases = changes_biases(parent) and not options.drop_bias
    changes = changed_weights(parent, base) if needs_biases and base else ()
    fields = {
        key: parent.adapter.config.fields[key]
        for key in ("ensure_weight_tying",)
        if parent.adapter.config.flag(key)
    }
    adapter = build_lora(
        [parent],
        _recorded(parent, options, None),
        list(made.modules),
        made.compute,
        LoraOptions(made.dtype, 0 if options.uniform else None),
        choose_whole_weights([parent], options.whole_weights),
        [*notes, *normalisation_notes(made)],
    )
    return _with_declared_base(with_config_fields(adapter, made.common_scale or 1.0, fields), base), changes


def _compute(
    parent: ParentAdapter, options: ConvertOptions, base: ConversionBase | None, notes: Sequence[str]
) -> _Conversion:
    refuse_without_weights(parent, base)
    METHODS[parent.adapter.spec.method].check_installed()
    changes = changed_weights(parent, base)
    _refuse_without_rank(parent, options, changes)
    _refuse_resized(parent, changes)
    maker = _ComputedModules(
        open_method_deltas(parent, changes, base), options, {changed.site: changed for changed in changes}
    )
    whole = choose_whole_weights([parent], options.whole_weights)
    adapter = build_lora(
        [parent],
        _recorded(parent, options, base),
        list(maker.changes),
        maker.compute,
        LoraOptions(options.dtype or "F32", 0 if options.uniform else None),
        whole,
        [*notes, *([_WITHOUT_BASE] if _may_be_kernels(changes) else [])],
    )
    fields: Json = {}
    if base is not None:
        fields["fan_in_fan_out"] = any(changed.orientation == "conv1d" for changed in changes)
    if str(whole.fields.get("bias", "none")).endswith("_only"):  # `vera_only` and the like
        fields["bias"] = "lora_only"
    return _with_declared_base(with_config_fields(adapter, 1.0, fields), base), changes


@dataclass(frozen=True, slots=True)
class _ComputedModules:
    deltas: MethodDeltas
    options: ConvertOptions
    changes: Mapping[WeightSite, ChangedWeight]

    def compute(self, site: WeightSite) -> tuple[Factors, Mapping[str, float]]:
        """The site's float32 factors [out, k] and [k, in], and their error compared with the method's update.
        Raises `InvalidWeights`."""
        from adaptry.compute.conversion.truncation import (
            RankLimit,
            measure_dense_error,
            truncate,
            truncate_dense,
        )
        from adaptry.compute.lazy_adapters.rounding import round_factors

        changed, options = self.changes[site], self.options
        own = self.deltas.dense(changed)
        limit = RankLimit(options.rank, options.energy)
        if is_factored(self.deltas.parent):
            made = truncate(self.deltas.factors(changed), limit)
        else:
            known = known_rank(self.deltas.parent, changed)
            if known is not None and options.energy is None:
                limit = RankLimit(min(known, options.rank or known))
            made = truncate_dense(own, limit)
        made = round_factors(made, options.dtype or "F32")
        return made, measure_dense_error(own, made)


def refuse_without_weights(parent: ParentAdapter, base: ConversionBase | None) -> None:
    """Raises `CheckFailed` if the updates depend on the base's weights, and these are not available."""
    if needs_base_weights(parent) and (base is None or base.checkpoint is None):
        title = METHODS[parent.adapter.spec.method].title
        is_lora = parent.adapter.spec.method == "lora"
        why = (
            plain_reason(parent.adapter)
            if is_lora
            else f"is {title}, whose update depends on the base's weights"
        )
        raise CheckFailed(
            f"{parent.label} {why}: pass the base with --base (a folder,"
            " or the name of a base whose weights are on this machine)"
        )


def _may_be_kernels(changes: Sequence[ChangedWeight]) -> bool:
    """Whether a module may be a convolution: its method flattens kernels, and the base is unknown."""
    return any(changed.tensor is None and changed.module.kind == "flat" for changed in changes)


def _refuse_without_rank(
    parent: ParentAdapter, options: ConvertOptions, changes: Sequence[ChangedWeight]
) -> None:
    if options.rank is not None or options.energy is not None or is_factored(parent):
        return
    full = next((changed for changed in changes if known_rank(parent, changed) is None), None)
    if full is not None:
        maximum = min(full.site.fan_out, full.site.width)
        raise CheckFailed(
            f"the update of {parent.label} is not a product of thin factors (at {full.site.path} it may have"
            f" rank {maximum}), so a LoRA can only approximate it: pass --rank N or --energy 0.99 and check"
            " the error, or merge it into its base (adaptry merge), which needs no rank"
        )


def _refuse_resized(parent: ParentAdapter, changes: Sequence[ChangedWeight]) -> None:
    for changed in changes:
        own = own_weight(parent, changed)
        if own is not None and own.shape != changed.shape:
            raise Unsupported(
                f"{parent.label} has an {own.target} of {own.shape[0]:,} rows and an update of it that"
                f" depends on the base's values, which have {changed.shape[0]:,} rows: merge it"
                " instead (--resize-vocab)"
            )


def _recorded(parent: ParentAdapter, options: ConvertOptions, base: ConversionBase | None) -> Json:
    """The recipe stored with the result: exactly the settings that determine its values."""
    kept = {
        key: value
        for key, value in options.model_dump(mode="json", exclude={"other_base"}).items()
        if value not in (None, False)
    }
    on = {"base": str(base.record.id)} if base else {}
    return {"operation": "convert", "inputs": [parent.recipe_entry()], **on, **kept}


def _with_declared_base(adapter: LazyAdapter, base: ConversionBase | None) -> LazyAdapter:
    """The lazy adapter, with `base` as its declared base."""
    if base is None:
        return adapter
    return replace(
        adapter, base=BaseClaim(id=base.record.id, name=adapter.base.name if adapter.base else None)
    )


def with_config_fields(adapter: LazyAdapter, alpha: float, fields: Json) -> LazyAdapter:
    """A plain LoRA with other fields in its config, and its alphas multiplied by `alpha`."""

    def config(shapes: Mapping[str, tuple[int, ...]]) -> Json:
        found = adapter.config(shapes)
        if alpha != 1.0:
            found["lora_alpha"] = _number(alpha * found["r"])
            found["alpha_pattern"] = {
                name: _number(alpha * rank) for name, rank in found["rank_pattern"].items()
            }
        return {**found, **fields}

    return replace(adapter, config=config)


def _number(value: float) -> float:
    """The value, as an int if it is whole: engines expect that."""
    return int(value) if value == int(value) else value


def _with_biases(adapter: LazyAdapter, biases: BiasDeltas) -> LazyAdapter:
    make: Callable[[], Iterator[ComputedModule]] = adapter.compute
    taken = set(biases.names)

    def modules() -> Iterator[ComputedModule]:
        for made in make():
            if not taken.intersection(
                made.tensors
            ):  # the adapter's own bias, from which the new one was computed
                yield made
        yield from biases.compute()

    def config(shapes: Mapping[str, tuple[int, ...]]) -> Json:
        found = adapter.config(shapes)
        return {**found, "bias": "all" if found["bias"] == "all" else "lora_only"}

    names = (*(name for name in adapter.names if name not in taken), *biases.names)
    count = format_count(len(biases.names), "module")
    note = f"complete biases, with the adapter's changes, are written for {count}"
    return replace(adapter, names=names, compute=modules, config=config, notes=(*adapter.notes, note))
