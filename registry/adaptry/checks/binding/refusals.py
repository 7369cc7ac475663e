"""The modules that a config selects but the file lacks, and why PEFT refuses to load an adapter.

Each reason was observed in PEFT 0.21: an exception of `PeftModel.from_pretrained`, whose cause is given here,
as far as config, names and shapes show it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.adalora import pattern_path
from adaptry.adapters.methods.method import WeightSides
from adaptry.bases.model_classes import EXPERT_MATRICES, cannot_generate, expert_family
from adaptry.bases.module_map import PACKED_WEIGHTS, ExtraTarget, ModuleMap
from adaptry.bases.parameterless_modules import parameterless_modules
from adaptry.checks.binding.direct_weights import refused_module
from adaptry.checks.binding.expert_factors import expert_matrix, expert_problems, transformers5_path
from adaptry.checks.binding.forced_ties import HEAD, STACK_INPUTS
from adaptry.checks.binding.loaded_model import LoadedModel, bare_path
from adaptry.checks.binding.parameter_targets import (
    parameters_of_other_dimensions,
    refused_beside_parameters,
)
from adaptry.checks.binding.saved_modules import saved_module_refusals
from adaptry.checks.binding.targets import is_embedding
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names, verb_form

_MATRICES = ("in_proj_weight", *PACKED_WEIGHTS)
"""Other parameters than `weight` that make a module a layer with a matrix."""
_ROUTERS = frozenset(["gate", "router"])
"""Routers of experts, whose class in transformers 5 `all-linear` excludes."""
_WITH_LINEAR_ROUTERS = frozenset(["llama4", "llama4_text", "phimoe"])
"""Models whose router is a subclass of `torch.nn.Linear`, which PEFT adapts."""
_ADAPTED = {"ln_tuning": ("weight", 1), "beft": ("bias", 1)}
"""The kinds of layers that a method adapts, if not every weight with two or more dimensions."""


def uncovered_modules(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """Modules that PEFT adapts, but for which the file has no tensor, in the model's order."""
    spec = model.adapter.spec
    if not module_map.placed or model.targets.is_free:
        return
    held = {bare_path(module.path) for module in spec.modules}
    held |= set(map(transformers5_path, held)) | set(map(model.names.own_module, held))
    fused = filter(None, (expert_matrix(path, model.model_type) for path in held))
    held |= {matrix.parameter.rpartition(".")[0] for matrix in fused}
    held |= {extra.target.rpartition(".")[0] for extra in spec.extras}
    parameter, dimensions = _ADAPTED.get(spec.method, ("weight", 2))
    for path in model.names.holders_of(parameter, dimensions):
        if path not in held and model.reason_not_adapted(path) is None:
            yield path
    yield from sorted(_targeted_holders(model) - held)


def _targeted_holders(model: LoadedModel) -> set[str]:
    """The modules with a parameter that a LoRA's config targets, by its name or by an expert's old names."""
    if model.adapter.spec.method != "lora" or not model.targets.parameters:
        return set()
    return {
        name.rpartition(".")[0] for name in model.names.parameters if model.targets.includes_parameter(name)
    }


def refusals(model: LoadedModel, module_map: ModuleMap, uncovered: Iterable[str]) -> Iterator[str]:
    """A sentence for each reason, without a full stop. `uncovered` are those of `uncovered_modules`."""
    if model.targets.has_none:
        yield "the config selects no module (target_modules)"
    if cannot_generate(model.model_type, task := model.adapter.spec.task):
        yield f"task_type is {task}, but no model of type {model.model_type} generates text"
    if model.adapter.spec.method == "ia3" and model.adapter.config.fields.get("feedforward_modules") is None:
        yield "feedforward_modules is not set, and PEFT has no default list for this base"
    if model.adapter.spec.method == "lora" and expert_family(model.model_type):
        yield from _fused_targets(model)
        yield from expert_problems(model)
    if model.adapter.config.peft_type == "LORA" and "arrow" in model.adapter.spec.traits:
        yield "arrow_config is set, but PEFT loads no router: create_arrow_model makes it of plain LoRAs"
    if model.adapter.spec.method == "adalora":
        yield from _ranks_of_no_module(model)
    if model.adapter.spec.method in ("shadow", "tinylora", "vblora"):
        from adaptry.checks.binding.refused_tensors import refused_tensors  # few adapters need it

        yield from refused_tensors(model)
    if model.adapter.config.flag("lora_bias") and any(map(is_embedding, _adapted(model))):
        yield "lora_bias is set, which PEFT does not support for embeddings"
    reason = refused_module(model.adapter.spec.method, model.model_type, _selected_matrices(model))
    if reason is not None:
        yield reason
    yield from _unsupported_modules(model)
    yield from _targeted_twice(model)
    if model.adapter.spec.method == "lora":
        if isinstance(model.adapter.config.fields.get("init_lora_weights"), str):
            from adaptry.checks.binding.refused_starts import refused_starts  # few adapters need it

            yield from refused_starts(model, module_map)
        if model.targets.parameters:
            yield from parameters_of_other_dimensions(model)
            yield from refused_beside_parameters(model)
    if model.adapter.config.saved_modules:
        layers = {bare_path(target.module.path) for target in module_map.placed}
        yield from saved_module_refusals(model, [*sorted(layers), *uncovered])
    yield from _token_rows(model, module_map)
    yield from _rows_of_input(model)
    yield from _adapted_rows(model, module_map)
    yield from _rows_inside_dora(model, module_map)
    yield from _modules_without_token_rows(model, module_map)
    yield from _empty_tensors(model.adapter)
    yield from _unadaptable(model, uncovered)
    yield from _other_shapes(model, module_map)


def _selected_matrices(model: LoadedModel) -> Iterator[str]:
    """The paths of the modules that have a weight and that the config selects."""
    for path in model.names.holders_of("weight", 2):
        if model.reason_not_adapted(path) is None or model.targets.includes_parameter(f"{path}.weight"):
            yield path


def _fused_targets(model: LoadedModel) -> Iterator[str]:
    """Targets that select half of a fused parameter. In families whose targets PEFT converts, it raises
    `ValueError` if it finds one half of a fused parameter, and does not use its default list.
    """
    config, matrices = model.adapter.config, EXPERT_MATRICES[expert_family(model.model_type)]
    if config.fields.get("target_modules") is None and not config.names("target_parameters"):
        yield "target_modules is not set, and PEFT does not use its default list for this base"
    for half in model.experts.halves if model.experts else ():
        lost = next(name for name in matrices if matrices[name] == matrices[half] and name != half)
        yield f"target_modules selects {half} without {lost}, which this base fuses with it"


def _adapted(model: LoadedModel) -> list[str]:
    """The modules with a matrix that the config makes PEFT adapt."""
    return [path for path in model.names.holders_of("weight", 2) if model.reason_not_adapted(path) is None]


def _unsupported_modules(model: LoadedModel) -> Iterator[str]:
    """Selected modules for which PEFT raises an error: it adapts only layers that have a matrix, or any
    weight.
    """
    method = model.adapter.spec.method
    if method == "osf" or model.targets.is_free or model.targets.is_all_linear:
        return  # OSF ignores them
    parameters, minimum = model.names.parameters, 1 if method == "ln_tuning" else 2
    for path in sorted(model.names.modules):
        is_head = f"{path}.bias" in parameters  # its weight is tied, and not stored
        shape = parameters.get(f"{path}.weight", None if is_head else ())
        has_matrix = shape is None or len(shape) >= minimum
        has_matrix = has_matrix or any(f"{path}.{name}" in parameters for name in _MATRICES)
        is_layer = has_matrix and not _is_router(model, path)
        if not is_layer and model.reason_not_adapted(path) is None:
            (name,) = fold_layer_numbers([path])
            yield f"the config selects {name}, which is not a layer that PEFT can adapt"
            return
    idle = list(parameterless_modules(model.model_type, model.names.modules)) if method != "ln_tuning" else []
    model.targets.prepare(idle)
    for path in idle:
        if model.reason_not_adapted(path) is None:
            (name,) = fold_layer_numbers([path])
            yield f"the config selects {name}, which has no parameters, so PEFT cannot adapt it"
            return


def _is_router(model: LoadedModel, path: str) -> bool:
    """Whether the module is a router of fused experts, a class of transformers 5 of which PEFT adapts only
    the parameter.
    """
    around, _, name = path.rpartition(".")
    is_beside = f"{around}.experts.gate_up_proj" in model.names.parameters
    if model.model_type in _WITH_LINEAR_ROUTERS:
        return False
    return name in _ROUTERS and is_beside and not model.targets.includes_parameter(f"{path}.weight")


def _targeted_twice(model: LoadedModel) -> Iterator[str]:
    """Parameters of modules that PEFT also adapts themselves, which it refuses."""
    if model.adapter.spec.method != "lora" or not model.targets.parameters:
        return
    for path in model.names.holders_of("weight", 2):
        if (
            model.targets.includes_parameter(f"{path}.weight")
            and model.targets.reason_not_adapted(path) is None
        ):
            (first,) = fold_layer_numbers([path])
            yield f"the config selects {first} by target_modules and its weight by target_parameters"
            return


def _token_rows(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    indices = model.adapter.config.token_indices
    if indices is None and model.adapter.spec.method == "trainable_tokens":
        indices = []  # PEFT's default
    if indices is not None and not isinstance(indices, dict | list):
        yield f"the config lists no token rows, but has {str(indices)[:20]!a} in their place"
    wanted = indices if isinstance(indices, dict) else {"": indices}
    for end, rows in wanted.items():
        if isinstance(rows, list) and not _is_other_end_of_tie(model, module_map, wanted, end):
            yield from _rows(module_map, end, rows)


def _rows_of_input(model: LoadedModel) -> Iterator[str]:
    """Input embeddings that TRAINABLE_TOKENS wraps twice, since it counts each of them as tied to itself."""
    if model.adapter.spec.method != "trainable_tokens" or not model.is_input_among_tied:
        return
    is_default = model.adapter.config.fields.get("target_modules") is None
    inputs = [path for path in STACK_INPUTS if model.targets.names(path)]
    if is_default or inputs:
        yield "PEFT wraps the input embedding of this model twice, after which the model raises an error"


def _adapted_rows(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """Embeddings whose rows PEFT cannot train: it raises an error for one that it also adapts (TypeError) or
    saves whole (KeyError).
    """
    if model.adapter.spec.method == "trainable_tokens":
        return
    for extra in _trained_rows(module_map):
        path = extra.extra.target.removesuffix(".weight")
        if model.adapter.config.is_saved(path):
            yield f"the config saves {path} whole (modules_to_save) and also trains token rows of it"
        elif model.reason_not_adapted(path) is None:
            yield f"the config adapts {path} (target_modules) and also trains token rows of it"


def _rows_inside_dora(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """PEFT also trains the rows in a head that is tied to the embedding, inside the head's update. DoRA reads
    the head's bias, an attribute that the layer for the rows does not have.
    """
    if "dora" not in model.adapter.spec.traits or not _trained_rows(module_map):
        return
    heads = [
        each.module.path for each in module_map.placed if each.tied and not is_embedding(each.module.path)
    ]
    if heads:
        yield f"use_dora is set for {heads[0]}, whose token rows are also trained: the model raises an error"


def _modules_without_token_rows(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """Modules in a TRAINABLE_TOKENS config's `target_modules` whose rows PEFT cannot train: it needs an
    embedding or an `nn.Linear` that has these rows.
    """
    config = model.adapter.config
    if model.adapter.spec.method != "trainable_tokens" or config.fields.get("target_modules") is None:
        return
    held = {extra.extra.target for extra in _trained_rows(module_map)}
    tied = {weight.removesuffix(".weight") for weight in held}  # an embedding that is not stored itself
    modules = {*model.names.modules, *parameterless_modules(model.model_type, model.names.modules), *tied}
    model.targets.prepare(modules)
    selected = sorted(filter(model.targets.names, modules))
    if not selected:
        yield "target_modules selects no module of the model"
    rows = config.fields.get("token_indices", [])
    last = max((row for row in rows if type(row) is int), default=0) if isinstance(rows, list) else 0
    parameters = model.names.parameters
    for path in selected:
        weight = f"{path}.weight"
        is_tied = (path in tied and weight not in parameters) or (
            weight in parameters and parameters[weight] is None
        )
        if is_tied or any(f"{path}.{packed}" in parameters for packed in PACKED_WEIGHTS):
            continue
        shape = parameters.get(weight) or ()
        (name,) = fold_layer_numbers([path])
        if len(shape) != 2 or model.classes.is_conv1d(path) or _is_router(model, path):
            yield f"the config selects {name}, in which PEFT cannot train token rows"
            return
        if shape[0] <= last and weight not in held:  # missing rows of these are reported elsewhere
            yield f"the config trains row {last:,} of {name}, which has {format_count(shape[0], 'row')}"
            return


def _ranks_of_no_module(model: LoadedModel) -> Iterator[str]:
    """Keys of AdaLoRA's `rank_pattern` without a module: PEFT looks up the module of each."""
    paths = map(pattern_path, model.adapter.config.pattern_values("rank_pattern"))
    if lost := [
        path
        for path in paths
        if model.reason_not_adapted(path) is not None or not model.names.has_module(path)
    ]:
        yield f"rank_pattern has ranks for {shorten_names(lost)}, but the config does not adapt these modules"


def _empty_tensors(adapter: Adapter) -> Iterator[str]:
    """Empty tensors: shards of DeepSpeed ZeRO-3 that were not gathered before saving, or tensors that were
    cut off.
    """
    empty_roles = METHODS[adapter.spec.method].empty_roles
    complete = {
        module.tensors[role]
        for module in adapter.spec.modules
        for role in empty_roles(adapter.config, module.path) & module.tensors.keys()
    }
    empty = [name for name, info in adapter.tensors.items() if not info.numel and name not in complete]
    if empty:
        count, have = format_count(len(empty), "tensor"), verb_form(len(empty), "has", "have")
        yield f"{count} {have} no elements: {shorten_names(fold_layer_numbers(empty))}"


def _is_other_end_of_tie(
    model: LoadedModel, module_map: ModuleMap, wanted: Mapping[str, object], end: str
) -> bool:
    """Whether the file has these rows for the other side of a tied embedding: PEFT stores them once."""
    same = tuple(other for other, rows in wanted.items() if other != end and rows == wanted[end])
    paths = {extra.extra.target.removesuffix(".weight"): extra for extra in _trained_rows(module_map)}
    is_forced = model.is_head_forced and HEAD.endswith(end)
    return (
        bool(same)
        and not any(path.endswith(end) for path in paths)
        and any((extra.tied or is_forced) and path.endswith(same) for path, extra in paths.items())
    )


def _trained_rows(module_map: ModuleMap) -> list[ExtraTarget]:
    return [extra for extra in module_map.extras if extra.extra.kind == "token_rows"]


def _rows(module_map: ModuleMap, end: str, rows: list[object]) -> Iterator[str]:
    """Problems of an embedding's indices: each must be one of its rows, none may occur twice, and there must
    be as many as the file has rows.
    """
    held = [
        extra
        for extra in _trained_rows(module_map)
        if extra.extra.target.removesuffix(".weight").endswith(end)
    ]
    if not held:
        embedding = end or "the input embedding"
        listed = format_count(len(rows), "token row")
        yield f"the config trains {listed} of {embedding}, but the file has none"
        return
    for extra in held:
        count = extra.extra.shape[0] if extra.extra.shape else 0
        if count != len(rows):
            listed = f"the config lists {format_count(len(rows), 'token row')} for {extra.extra.target}"
            yield f"{listed}, but the file has {count:,}"
    wrong = [row for row in rows if type(row) is not int or row < 0]
    if wrong:
        yield f"the config lists {str(wrong[0])[:20]} as a token row"
    twice = [row for row, times in Counter(map(str, rows)).items() if times > 1]
    if twice:
        yield f"the config lists token row {twice[0][:20]} twice"


def _unadaptable(model: LoadedModel, uncovered: Iterable[str]) -> Iterator[str]:
    """Reasons why PEFT cannot adapt selected modules without tensors in the file."""
    method, config = METHODS[model.adapter.spec.method], model.adapter.config
    for path in uncovered:
        sides = _sides(model, path)
        if sides is not None and (why := method.cannot_adapt(sides, config)) is not None:
            yield f"the config selects {path}, which {why}"


def _other_shapes(model: LoadedModel, module_map: ModuleMap) -> Iterator[str]:
    """Tensors whose shapes differ from those that PEFT derives from all weights that it adapts."""
    method, config = METHODS[model.adapter.spec.method], model.adapter.config
    if method.shapes_in_model is None:
        return
    weights = {
        path: sides
        for path in (*model.names.holders_of("weight", 2), *_tied_modules(model))
        if model.reason_not_adapted(path) is None and (sides := _sides(model, path)) is not None
    }
    expected = method.shapes_in_model(weights, config)
    held = {bare_path(target.module.path): target.module.tensors for target in module_map.placed}
    for path, shapes in expected.items():
        names = held.get(path, {}) if path else model.adapter.spec.shared
        for role, shape in shapes.items():
            name = names.get(role, "")
            if name and (found := model.adapter.tensors[name].shape) != shape:
                first = f"{shorten_names([name])} is {list(found)}"
                yield f"{first}, but by all modules that the config selects it is {list(shape)}"


def _tied_modules(model: LoadedModel) -> Iterator[str]:
    return (name.removesuffix(".weight") for name in model.names.tied)


def _sides(model: LoadedModel, path: str) -> WeightSides | None:
    """The sides of a weight; None if it is not a matrix, or `all-linear` excludes its class."""
    weight = f"{path}.weight"
    shape = model.names.parameters.get(weight) or model.names.tied.get(weight)
    is_router = path.rpartition(".")[2] in _ROUTERS and model.targets.is_all_linear
    if shape is None or len(shape) != 2 or is_embedding(path) or is_router:
        return None
    fan_out, fan_in = shape[::-1] if model.classes.is_conv1d(path) else shape
    return WeightSides(fan_out, fan_in)
