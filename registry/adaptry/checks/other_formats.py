"""Checks of an adapter that a tool other than PEFT wrote, from its config and header.

Most of them find parts that the tool would silently drop when it loads the file, or would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import FORMATS, AdapterFormat
from adaptry.adapters.header import FLOATS
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.tool_rules import RULES, with_tool_remedy
from adaptry.core.report import Finding

# Parts of the names of factors in all tools: a dropped tensor with such a name was trained.
_TRAINED = ("lora", "adapter", "hada_", "lokr_", "prefix", "prompt", "reft", "shared_parameters")


def check_other_format(adapter: Adapter) -> Iterator[Finding]:
    """The findings that do not need a base."""
    spec, format = adapter.spec, detect_writer(adapter)
    if "not_described" in spec.traits:
        reason = f"the checks do not support {spec.method} as {format.tool} writes it"
        yield build_finding("method_not_described", reason)
    yield from _keys(adapter, format)
    yield from _integers(adapter)
    yield from _transposed_factors(spec, format)
    if format.name in RULES:
        yield from RULES[format.name](adapter, format)


def as_mlx_renaming(found: Finding) -> Finding:
    """The finding, reported as a renaming if it is about MLX's names of experts, which only MLX's copies of a
    model have.
    """
    if found.code != "module_missing" or not all(".switch_mlp." in path for path in found.modules):
        return found
    names = shorten_names(fold_layer_numbers(found.modules))
    return build_finding(
        "module_renamed", f"{names}: MLX's names, which differ from the base's", found.modules
    )


def detect_writer(adapter: Adapter) -> AdapterFormat:
    """The tool whose names the tensors have, which the file's name does not always show."""
    return next(format for name, format in FORMATS.items() if name in adapter.spec.traits)


def _keys(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    spec = adapter.spec
    if not spec.modules and not spec.shared:
        count = format_count(len(adapter.tensors), "tensor")
        example = next(iter(adapter.tensors), "none")
        reason = f"{format.tool} would use none of its {count} ({example})"
        yield with_tool_remedy(build_finding("no_effect", reason, spec.unclaimed), format)
        return
    dropped = [name for name in spec.unclaimed if any(word in name for word in _TRAINED) or ".alpha" in name]
    unknown = sorted(set(spec.unclaimed) - set(dropped))
    if dropped:
        reason = (
            f"{format_count(len(dropped), 'tensor')} of incomplete modules:"
            f" {shorten_names(fold_layer_numbers(dropped))}"
        )
        yield with_tool_remedy(build_finding("keys_dropped", reason, dropped), format)
    if unknown:
        names = shorten_names(fold_layer_numbers(unknown))
        yield build_finding("keys_unknown", f"{format.tool} writes no tensors such as {names}", unknown)


def _integers(adapter: Adapter) -> Iterator[Finding]:
    alphas = {
        module.tensors.get("alpha") for module in adapter.spec.modules
    }  # converters write whole numbers
    integers = [
        name for name, info in adapter.tensors.items() if info.dtype not in FLOATS and name not in alphas
    ]
    if integers:
        yield build_finding(
            "integer_weights", f"{format_count(len(integers), 'tensor')} ({integers[0]})", integers
        )


def _transposed_factors(spec: Spec, format: AdapterFormat) -> Iterator[Finding]:
    """A finding if a rank is larger than the weight's sides, a sign of transposed factors."""
    modules = [module for module in spec.modules if module.fan_in and module.kind != "parameter"]
    if spec.method == "lora" and modules and all(m.rank > max(m.fan_in, m.fan_out) for m in modules):
        first = modules[0]
        reason = (
            f"the factors seem to be transposed: {first.path} would have rank {first.rank:,} for "
            f"{first.fan_in:,} inputs and {first.fan_out:,} outputs, like all other modules"
        )
        yield with_tool_remedy(
            build_finding("rank_mismatch", reason, [module.path for module in modules]), format
        )
