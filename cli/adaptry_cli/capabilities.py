"""The possible uses of an adapter, in words: for `inspect`, and for the table in `docs/methods.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.key_layout import TITLES
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.method import Method
from adaptry.bases.quantised.name_hints import parse_quantisation_hint
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry_cli.output import format_count, format_size

_AS_LORA = {
    "itself": "it is one",
    "exact": "exactly",
    "given_base": "exactly, for one base's weights",
    "approximate": "approximately",
    "no": "no",
}
_BF16 = 2  # bytes


def facts_of_use(adapter: Adapter, base_parameters: int | None) -> Iterator[tuple[str, str]]:
    """The costs and possible uses of an adapter, as (name, text) pairs. `base_parameters` is None if
    unknown.
    """
    spec = adapter.spec
    if spec.virtual_tokens is not None:
        where = f"in {format_count(len(spec.modules), 'layer')}" if spec.modules else "before every input"
        yield "virtual tokens", f"{spec.virtual_tokens} {where}"
    trained = trained_parameters(adapter)
    if trained != spec.parameters:
        yield "trained", f"{trained:,} of its parameters"
    if base_parameters:
        share = trained / base_parameters
        yield "share of base", f"{100 * share:.2f} % of {base_parameters:,} parameters"
    yield "when served", f"{format_size(spec.parameters * _BF16)} in bfloat16"
    yield "merge", merge_text(adapter)
    yield "as LoRA", lora_text(adapter)
    yield (
        "layout",
        "; ".join(TITLES[layout] for layout in spec.layouts) or "the same for transformers 4 and 5",
    )


def json_of_use(adapter: Adapter, base_parameters: int | None) -> Mapping[str, object]:
    """Like `facts_of_use`, as JSON for programs."""
    spec, reason = adapter.spec, why_not_merged(adapter)
    method = METHODS.get(spec.method)
    return {
        "title": method_title(spec.method),
        "base_parameters": base_parameters,
        "trained_parameters": trained_parameters(adapter),
        "share": trained_parameters(adapter) / base_parameters if base_parameters else None,
        "served_bytes": spec.parameters * _BF16,
        "merge": reason is None,
        "merge_reason": reason,
        "as_lora": method.lora_form_for(adapter.config) if method else None,
        "lora_ranks": _lora_ranks(adapter),
        "layouts": list(spec.layouts),
    }


def trained_parameters(adapter: Adapter) -> int:
    """The number of trained elements: some files also contain random numbers or parts of the base."""
    spec, method = adapter.spec, METHODS.get(adapter.spec.method)
    if method is None:
        return spec.parameters
    roles = [*spec.shared.items(), *(pair for module in spec.modules for pair in module.tensors.items())]
    kept = [tensor for role, tensor in roles if not method.is_trained(role)]
    kept += [extra.tensor for extra in spec.extras if extra.kind == "saved_embedding"]
    return spec.parameters - sum(adapter.tensors[name].numel for name in kept)


def method_title(name: str) -> str:
    """A method's title, such as `LoHa`; for an unknown method, its name."""
    method = METHODS.get(name)
    return method.title if method else name


def as_lora(method: Method) -> str:
    """Whether the updates of a method can be written as a LoRA, for any adapter."""
    return _AS_LORA[method.lora_form_for()]


def method_row(method: Method) -> tuple[str, str, str, str]:
    """A row of the table of methods: title, peft_type, and whether it can be merged or written as a LoRA."""
    merged = method.tolerance if method.is_mergeable else f"no: {method.unmergeable_hint}"
    return method.title, method.name.upper(), merged, as_lora(method)


def lora_text(adapter: Adapter) -> str:
    """Whether one adapter can be written as a LoRA, with the ranks that the LoRA would have."""
    method = METHODS.get(adapter.spec.method)
    if method is None:
        return "not known"
    kind = method.lora_form_for(adapter.config)
    ranks = ", ".join(str(rank) for rank in _lora_ranks(adapter))
    if kind == "approximate":
        return f"{_AS_LORA[kind]}, at the rank that `adaptry convert` is given"
    return f"{_AS_LORA[kind]}, rank {ranks}" if ranks else _AS_LORA[kind]


def merge_text(adapter: Adapter) -> str:
    """Whether an adapter can be merged into its base's weights, and how close the result is to that of its
    own library; otherwise the reason.
    """
    if reason := why_not_merged(adapter):
        return f"no: {reason}"
    word = parse_quantisation_hint(adapter.config.base_name)
    copy = (
        f"; trained on a quantised copy, judging by its name ({word}): choose the copy with --base-copy"
        if word
        else ""
    )
    return f"yes; compared with PEFT's: {METHODS[adapter.spec.method].tolerance}{copy}"


def why_not_merged(adapter: Adapter) -> str | None:
    """The reason against merging that its files alone show; None if they show no reason."""
    from adaptry.compute.merging.weighted_adapter import WeightedAdapter, refuse_unmergeable

    try:
        refuse_unmergeable(WeightedAdapter(adapter, 1.0, "this adapter"))
    except (CheckFailed, Unsupported) as error:
        return error.message
    return None


def _lora_ranks(adapter: Adapter) -> list[int]:
    method = METHODS.get(adapter.spec.method)
    if method is None or method.lora_form_for(adapter.config) not in ("exact", "given_base"):
        return []
    ranks = {method.lora_rank(module, adapter.config) for module in adapter.spec.modules}
    return sorted(rank for rank in ranks if rank)
