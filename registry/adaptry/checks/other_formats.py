"""What can be said of an adapter that another tool than PEFT wrote, from its config and its header.

Mostly what that tool would leave out without a word as it loads the file, and what it would refuse.
"""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.formats import FORMATS, AdapterFormat
from adaptry.adapters.header import FLOATS
from adaptry.adapters.spec import Spec
from adaptry.checks.codes import build_finding
from adaptry.checks.formatting import fold_layer_numbers, format_count, shorten_names
from adaptry.checks.tool_rules import RULES, with_tool_remedy
from adaptry.core.report import Finding

# What is in the name of a factor, whatever the tool: such a tensor was trained, and is missed.
_TRAINED = ("lora", "adapter", "hada_", "lokr_", "prefix", "prompt", "reft", "shared_parameters")


def check_other_format(adapter: Adapter) -> Iterator[Finding]:
    """The findings that need no base."""
    spec, format = adapter.spec, detect_writer(adapter)
    if "not_described" in spec.traits:
        reason = f"the rules of {spec.method}, as {format.tool} writes it, are not known here"
        yield build_finding("method_not_described", reason)
    yield from _keys(adapter, format)
    yield from _integers(adapter)
    yield from _turned(spec, format)
    if format.name in RULES:
        yield from RULES[format.name](adapter, format)


def excuse_mlx_experts(found: Finding) -> Finding:
    """What was found on a base, but for MLX's names of experts: only its own copies of a model have them."""
    if found.code != "module_missing" or not all(".switch_mlp." in path for path in found.modules):
        return found
    names = shorten_names(fold_layer_numbers(found.modules))
    return build_finding("module_renamed", f"{names}: MLX's names, where the base has others", found.modules)


def detect_writer(adapter: Adapter) -> AdapterFormat:
    """The tool in whose words the tensors are, which the file's name does not always tell."""
    return next(format for name, format in FORMATS.items() if name in adapter.spec.traits)


def _keys(adapter: Adapter, format: AdapterFormat) -> Iterator[Finding]:
    spec = adapter.spec
    if not spec.modules and not spec.shared:
        count = format_count(len(adapter.tensors), "tensor")
        example = next(iter(adapter.tensors), "none")
        reason = f"none of its {count} is one that {format.tool} would use ({example})"
        yield with_tool_remedy(build_finding("no_effect", reason, spec.unclaimed), format)
        return
    dropped = [name for name in spec.unclaimed if any(word in name for word in _TRAINED) or ".alpha" in name]
    unknown = sorted(set(spec.unclaimed) - set(dropped))
    if dropped:
        reason = (
            f"{format_count(len(dropped), 'tensor')} of no whole module:"
            f" {shorten_names(fold_layer_numbers(dropped))}"
        )
        yield with_tool_remedy(build_finding("keys_dropped", reason, dropped), format)
    if unknown:
        names = shorten_names(fold_layer_numbers(unknown))
        yield build_finding("keys_unknown", f"{format.tool} writes no tensors such as {names}", unknown)


def _integers(adapter: Adapter) -> Iterator[Finding]:
    alphas = {module.tensors.get("alpha") for module in adapter.spec.modules}  # converters write whole ones
    integers = [
        name for name, info in adapter.tensors.items() if info.dtype not in FLOATS and name not in alphas
    ]
    if integers:
        yield build_finding(
            "integer_weights", f"{format_count(len(integers), 'tensor')} ({integers[0]})", integers
        )


def _turned(spec: Spec, format: AdapterFormat) -> Iterator[Finding]:
    """Nobody trains a rank larger than the weight: factors turned the other way look like that."""
    modules = [module for module in spec.modules if module.fan_in and module.kind != "parameter"]
    if spec.method == "lora" and modules and all(m.rank > max(m.fan_in, m.fan_out) for m in modules):
        first = modules[0]
        reason = (
            f"the factors seem to lie the other way round: {first.path} would have rank {first.rank:,} for "
            f"{first.fan_in:,} inputs and {first.fan_out:,} outputs, and all others are like it"
        )
        yield with_tool_remedy(
            build_finding("rank_mismatch", reason, [module.path for module in modules]), format
        )
