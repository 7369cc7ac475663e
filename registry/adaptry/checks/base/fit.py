"""Whether an adapter fits a base: the base has its modules, with the widths of its factors.

This uses only the base's record and reads no weights. On a wrong base every module is wrong, so findings are
grouped by problem and not by module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.adapters.methods.method import WeightSides
from adaptry.adapters.spec import ExtraWeight
from adaptry.adapters.tensor_names import INPUT_EMBEDDINGS, layer_of
from adaptry.bases.module_map import ModuleMap, TargetTensor, has_own_rows
from adaptry.bases.parameter_lookup import WhyMissing
from adaptry.checks.codes import build_finding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, format_layers, shorten_names
from adaptry.core.report import Finding

_CODES: Mapping[WhyMissing, str] = {
    "absent": "module_missing",
    "ambiguous": "module_ambiguous",
    "experts": "experts_layout",
    "quantised": "base_quantised",
    "renamed": "module_renamed",
    "renumbered": "layers_renumbered",
}


_TASKS_WITHOUT_HEAD = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
"""The tasks whose classes in transformers add no module to the base's."""
_PACKED = frozenset(["I8", "U8", "I32", "U32", "F8_E4M3", "F8_E5M2"])


def check_fit(adapter: Adapter, base: BaseRecord, placement: ModuleMap) -> Iterator[Finding]:
    """The findings about `adapter`, placed in `base`."""
    yield from _missing(placement, base)
    yield from _blocks(placement, base)
    yield from _missing_extras(adapter, placement)
    yield from _extra_shapes(placement)
    yield from _tokens(adapter, placement)
    yield from _biases(placement, base)
    yield from _tied(placement)
    yield from _unlike_live(adapter, placement)
    yield from _shapes(adapter, placement, base)


def _missing(placement: ModuleMap, base: BaseRecord) -> Iterator[Finding]:
    by_kind: dict[WhyMissing, list[str]] = {}
    for module in placement.missing:
        by_kind.setdefault(placement.reasons[module.path].kind, []).append(module.path)
    for extra in placement.missing_extras:
        if _is_renamed(extra, placement):
            by_kind.setdefault("renamed", []).append(extra.target)
    for kind, paths in by_kind.items():
        reason = f"{shorten_names(fold_layer_numbers(paths))}: {placement.reasons[paths[0]].text}"
        yield build_finding(
            _CODES[kind], _what_is_missing(paths, placement, base) if kind == "absent" else reason, paths
        )


def _what_is_missing(paths: list[str], placement: ModuleMap, base: BaseRecord) -> str:
    """The difference in words: too many layers, other names, or a list of the missing modules."""
    layers = base.facts.get("layers")
    beyond = [layer for path in paths if (layer := layer_of(path)) is not None]
    if isinstance(layers, int) and len(beyond) == len(paths) and min(beyond) >= layers:
        return (
            f"it adapts {format_layers(beyond)}, but the base has {format_count(layers, 'layer')} (0"
            f" to {layers - 1})"
        )
    if not placement.placed:
        theirs = fold_layer_numbers(
            name for name in base.tensors if layer_of(name) is not None and len(base.tensors[name].shape) > 1
        )
        model = base.facts.get("model_type")
        return (
            f"the base has none of its modules: it changes {shorten_names(fold_layer_numbers(paths))}, "
            f"but the base ({model}) has {shorten_names(theirs or list(base.tensors))}"
        )
    known = format_count(len(paths) + len(placement.placed), "module")
    return f"{len(paths):,} of {known} are not in the base: {shorten_names(fold_layer_numbers(paths))}"


def _shapes(adapter: Adapter, placement: ModuleMap, base: BaseRecord) -> Iterator[Finding]:
    wrong: dict[str, list[str]] = {}
    quantised: list[str] = []
    grown = {
        placed.tensor: placed.extra.shape for placed in placement.extras if placed.extra.kind != "token_rows"
    }
    for placed in placement.placed:
        tensor = base.tensors[placed.tensor]
        if tensor.dtype in _PACKED:
            quantised.append(placed.module.path)
            if f"{placed.tensor}.absmax" in base.tensors:
                continue  # an unknown packing: the shape of the codes is not that of the weight
        shape = _with_all_inputs(adapter, placed, grown.get(placed.tensor, placed.weight.shape))
        reason = (
            misfit(placed, shape)
            or _other_experts(adapter, placed)
            or _misfit_by_method(adapter, placed, shape)
        )
        if reason:
            name = placed.module.path.rpartition(".")[2]
            wrong.setdefault(f"{name} {reason}", []).append(placed.module.path)
    if wrong:
        reasons = [f"{reason} ({format_count(len(paths), 'module')})" for reason, paths in wrong.items()]
        yield build_finding(
            "shape_mismatch", shorten_names(reasons, 4), [path for paths in wrong.values() for path in paths]
        )
    if quantised:
        method = base.facts.get("quantization", "integers")
        yield build_finding(
            "base_quantised",
            f"{shorten_names(fold_layer_numbers(quantised))}: quantised in the base ({method})",
            quantised,
        )


def _with_all_inputs(adapter: Adapter, placed: TargetTensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape`, or for a grouped convolution the shape with the inputs of all groups."""
    if placed.module.kind != "conv" or adapter.spec.method != "lora" or len(shape) < 3:
        return shape
    from adaptry.adapters.methods.grouped_convolution import count_groups  # for convolutions only

    return (shape[0], shape[1] * count_groups(placed.module, adapter.tensors), *shape[2:])


def _other_experts(adapter: Adapter, placed: TargetTensor) -> str | None:
    """Why the number of experts differs: the factors of all experts are concatenated, so their width shows
    it.
    """
    if placed.orientation != "parameter" or (placed.expert is None and len(placed.weight.shape) != 3):
        return None
    there = placed.expert.count if placed.expert else placed.weight.shape[0]
    _, _, rank = scale_of(adapter.config, placed.expert.parameter if placed.expert else placed.module.name)
    experts = placed.module.rank // rank
    if experts == there:
        return None
    return f"is for {format_count(experts, 'expert')}, but this base has {there:,}"


def misfit(placed: TargetTensor, shape: tuple[int, ...]) -> str | None:
    """The difference between a module's factors and the weight that they change, as the end of a sentence;
    None if they fit.
    """
    module = placed.module
    if placed.expert is not None:  # placed by its shape
        return None
    sides = _sides(placed, shape)
    if sides is None:
        return f"is a matrix in the adapter, but this base has {list(shape)}"
    fan_in, fan_out = sides
    if module.fan_in not in (0, fan_in):  # 0: unknown from its tensors
        return f"takes {module.fan_in:,} inputs, but this base's weight has {fan_in:,}"
    if module.fan_out not in (0, fan_out):
        return f"gives {module.fan_out:,} outputs, but this base's weight has {fan_out:,}"
    return None


def _misfit_by_method(adapter: Adapter, placed: TargetTensor, shape: tuple[int, ...]) -> str | None:
    """The method's own reason why the weight does not fit, other than its two sides."""
    sides = _sides(placed, shape)
    if sides is None or placed.expert is not None or adapter.format is not PEFT:
        return None
    fan_in, fan_out = sides
    kernel = shape[2:] if placed.orientation == "conv" else ()
    names = {**adapter.spec.shared, **placed.module.tensors}
    shapes = {role: adapter.tensors[name].shape for role, name in names.items()}
    return METHODS[adapter.spec.method].mismatch(
        placed.module, shapes, adapter.config, WeightSides(fan_out, fan_in, kernel)
    )


def _sides(placed: TargetTensor, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """(inputs, outputs) of a weight; None if it has no such sides."""
    if placed.orientation == "parameter":
        inner = shape[-2:]
        if len(shape) not in (2, 3):
            return None
        is_transposed = inner == (placed.module.fan_in, placed.module.fan_out)
        return (inner[0], inner[1]) if is_transposed else (inner[1], inner[0])
    if placed.orientation == "conv":
        if len(shape) < 3:
            return None
        return (math.prod(shape[1:]) if placed.module.kind == "flat" else shape[1], shape[0])
    if len(shape) != 2:
        return None
    return (shape[0], shape[1]) if placed.orientation in ("conv1d", "embedding") else (shape[1], shape[0])


def _blocks(placement: ModuleMap, base: BaseRecord) -> Iterator[Finding]:
    """Findings about updates of whole parts of the model, which must be as wide as the hidden states."""
    hidden = (base.facts.get("text_config") or base.facts).get("hidden_size")
    wrong = [module for module in placement.blocks if hidden not in (None, module.fan_in)]
    if wrong:
        reason = f"they are {wrong[0].fan_in:,} wide, but the base's hidden states are {hidden:,}"
        paths = [module.path for module in wrong]
        yield build_finding("shape_mismatch", f"{shorten_names(fold_layer_numbers(paths))}: {reason}", paths)


def _missing_extras(adapter: Adapter, placement: ModuleMap) -> Iterator[Finding]:
    heads = [extra.target for extra in placement.missing_extras if extra.kind == "module"]
    others = [
        extra.target
        for extra in placement.missing_extras
        if extra.kind != "module" and not _is_renamed(extra, placement)
    ]
    if heads:
        task = adapter.config.fields.get("task_type")
        is_dropped = adapter.format is PEFT and task in _TASKS_WITHOUT_HEAD
        reason = f"the base has no {shorten_names(fold_layer_numbers(heads))}"
        if is_dropped:
            yield build_finding("saved_module_dropped", f"{reason}, and task_type is {task}", heads)
        else:
            yield build_finding("new_head", reason, heads)
    if others:
        yield build_finding(
            "extra_missing", f"the base has no {shorten_names(fold_layer_numbers(others))}", others
        )


def _is_renamed(extra: ExtraWeight, placement: ModuleMap) -> bool:
    return placement.reasons[extra.target].kind == "renamed"


def _extra_shapes(placement: ModuleMap) -> Iterator[Finding]:
    for placed in placement.extras:
        extra, shape = placed.extra, placed.weight.shape
        if extra.kind == "token_rows" or extra.shape == shape:
            continue
        if _is_embedding(extra) and extra.shape[1:] == shape[1:] and extra.shape[0] > shape[0]:
            yield build_finding(
                "vocabulary_resized",
                f"{extra.target} has {extra.shape[0]:,} rows, but the base has {shape[0]:,}",
                [extra.target],
            )
        else:
            yield build_finding(
                "extra_shape",
                f"{extra.target} is {list(extra.shape)}, but {list(shape)} in the base",
                [extra.target],
            )


def _is_embedding(extra: ExtraWeight) -> bool:
    return extra.kind == "saved_embedding" or extra.target.split(".")[-2] in (*INPUT_EMBEDDINGS, "lm_head")


def _tokens(adapter: Adapter, placement: ModuleMap) -> Iterator[Finding]:
    """Findings about trained token rows, which must exist in the base's embedding and have its width."""
    rows = [placed for placed in placement.extras if placed.extra.kind == "token_rows"]
    largest = max(_indices(adapter.config.token_indices), default=-1)
    brought = {
        placed.tensor: placed.extra.shape[0]
        for placed in placement.extras
        if placed.extra.kind != "token_rows" and placed.extra.shape
    }
    for placed in rows:
        height, *width = placed.weight.shape
        height = brought.get(placed.tensor, height)
        if largest >= height:
            yield build_finding(
                "token_outside_vocabulary",
                f"it trains token {largest:,}, but {placed.tensor} has {height:,} rows",
                [placed.extra.target],
            )
        if list(placed.extra.shape[1:]) != width:
            yield build_finding(
                "extra_shape",
                f"the token rows for {placed.extra.target} are {placed.extra.shape[-1]:,} wide,"
                f" but {width} in the base",
                [placed.extra.target],
            )


def _indices(value: object) -> list[int]:
    """Token numbers from a list, or from a mapping of modules to lists."""
    if isinstance(value, Mapping):
        return [number for part in value.values() for number in _indices(part)]
    return [item for item in value if type(item) is int] if isinstance(value, list) else []


def _biases(placement: ModuleMap, base: BaseRecord) -> Iterator[Finding]:
    without = [
        placed.module.path
        for placed in placement.placed
        if "B_bias" in placed.module.tensors
        and f"{placed.tensor.removesuffix('.weight')}.bias" not in base.tensors
    ]
    if without:
        yield build_finding(
            "bias_without_place",
            f"{shorten_names(fold_layer_numbers(without))} have no bias in the base",
            without,
        )


def _unlike_live(adapter: Adapter, placement: ModuleMap) -> Iterator[Finding]:
    method = METHODS.get(adapter.spec.method)
    if adapter.format is not PEFT or method is None:
        return
    by_reason: dict[str, list[str]] = {}
    for placed in placement.placed:
        if (why := method.merge_difference(placed.weight.shape)) is not None:
            by_reason.setdefault(why, []).append(placed.module.path)
    for why, paths in by_reason.items():
        yield build_finding("merge_differs", f"{shorten_names(fold_layer_numbers(paths))}: {why}", paths)


def _tied(placement: ModuleMap) -> Iterator[Finding]:
    paths = [placed.module.path for placed in placement.placed if placed.tied]
    targets = [
        placed.extra.target
        for placed in placement.extras
        if placed.tied and (placed.extra.kind != "token_rows" or has_own_rows(placed, placement))
    ]
    if paths or targets:
        names = [*paths, *targets]
        yield build_finding(
            "tied_embeddings",
            f"{shorten_names(names)}: input embedding and output head are one weight",
            names,
        )
