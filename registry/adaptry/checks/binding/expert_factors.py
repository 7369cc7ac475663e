"""How PEFT adapts experts and routers in the families whose targets it converts.

The factors of all experts of a layer become one pair for each fused parameter. An expert's gate and up
projection share one pair, of twice the rank. PEFT looks up `rank_pattern` and `alpha_pattern` by the
parameter's name; if no pattern matches, rank and alpha are also twice the config's. With rsLoRA, this changes
the scale. A router is adapted as the parameter `gate.weight`, which a pattern such as `gate` does not match.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from adaptry.adapters.methods.extras import PREFIX
from adaptry.adapters.methods.lora_config import scale_of
from adaptry.bases.model_classes import EXPERT_MATRICES, expert_family
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.checks.binding.bound_adapter import DropCause
from adaptry.checks.binding.loaded_model import BASE_LAYER, LoadedModel, bare_path
from adaptry.checks.finding_text import fold_layer_numbers
from adaptry.core.lazy_dataclass import dataclass

_ONE_FACTOR = re.compile(r"(?P<experts>.*\.experts)\.(?P<index>\d+)\.(?P<rest>[^.]+\.lora_[AB])\..*")
_ONE_EXPERT = re.compile(r"(?P<experts>(?:.*\.)?experts)\.(?P<index>\d+)\.(?P<name>[^.]+)")
_RENAMED = (".block_sparse_moe.", ".mlp.")  # Mixtral's, in transformers 4 and 5


def is_single_expert(path: str) -> bool:
    """Whether the module is one matrix of one expert, by its name."""
    return _ONE_EXPERT.fullmatch(path) is not None


def transformers5_path(path: str) -> str:
    """The module's path in transformers 5, which renamed Mixtral's experts."""
    return path.replace(*_RENAMED)


@dataclass(frozen=True, slots=True)
class ExpertMatrix:
    """One matrix of one expert. `parameter` is the parameter into which PEFT fuses it, `last` the last
    parameter of its module, and `beside` has the names of all matrices of one expert that are fused into
    `parameter`.
    """

    index: int
    name: str
    parameter: str
    last: str
    beside: tuple[str, ...]


def expert_matrix(path: str, model_type: str) -> ExpertMatrix | None:
    """The matrix of an expert at this path; None if the module is not an expert's, or PEFT does not convert
    this family.
    """
    matrices, found = EXPERT_MATRICES.get(expert_family(model_type), {}), _ONE_EXPERT.fullmatch(path)
    fused = matrices.get(found["name"]) if found else None
    if found is None or fused is None:
        return None
    holder = transformers5_path(found["experts"])
    beside = tuple(name for name, parameter in matrices.items() if parameter == fused)
    return ExpertMatrix(
        int(found["index"]), found["name"], f"{holder}.{fused}", f"{holder}.down_proj", beside
    )


def with_parameter_scales(model: LoadedModel, intended: ModuleMap) -> ModuleMap:
    """`intended`, in which single experts and routers have the scale that PEFT looks up by the parameter.
    Raises `InvalidConfig` for an invalid rank or scale, and `Unavailable`.
    """
    return replace(intended, placed=tuple(_with_parameter_scale(model, target) for target in intended.placed))


def _with_parameter_scale(model: LoadedModel, target: TargetTensor) -> TargetTensor:
    path = bare_path(target.module.path)
    matrix, router = expert_matrix(path, model.model_type), _router_parameter(model, path)
    if matrix is not None:
        scale, alpha, _ = _fused_scale(model, matrix)
    elif router is not None:
        scale, alpha, _ = scale_of(model.adapter.config, router)
    else:
        return target
    return replace(target, module=target.module.model_copy(update={"scale": scale, "alpha": alpha}))


def _router_parameter(model: LoadedModel, path: str) -> str | None:
    """The parameter that PEFT adapts for a router; None for other modules."""
    name = f"{transformers5_path(path)}.weight"
    is_router = name.rpartition(".mlp.")[2] == EXPERT_MATRICES.get(expert_family(model.model_type), {}).get(
        "gate"
    )
    return name if is_router and model.targets.includes_parameter(name) else None


def _fused_scale(model: LoadedModel, matrix: ExpertMatrix) -> tuple[float, float, int]:
    """Scale, alpha and rank of the fused factors. PEFT multiplies alpha and rank only if `target_modules`
    selected all matrices of the parameter, not if `target_parameters` lists it.
    """
    is_fused = model.experts is not None and matrix.parameter.rpartition(".")[2] in model.experts.fused
    return scale_of(model.adapter.config, matrix.parameter, len(matrix.beside) if is_fused else 1)


def modules_as_parameters(model: LoadedModel) -> frozenset[str]:
    """The paths of single experts, whose factors PEFT fuses, and of routers."""
    paths = (module.path for module in model.adapter.spec.modules)
    return frozenset(
        path
        for path in paths
        if expert_matrix(bare_path(path), model.model_type) is not None
        or _router_parameter(model, bare_path(path)) is not None
    )


def keeps_experts_apart(names: Iterable[str]) -> bool:
    """Whether PEFT fuses each expert's factors into the right place. It puts them one after the other in the
    order of the file's names, so in a file that has some of them without PEFT's prefix, or under other names
    of the same module, an expert may get another's factors.
    """
    found: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for name in names:
        if (factor := _ONE_FACTOR.fullmatch(name)) is not None:
            bare = transformers5_path(factor["experts"].removeprefix(PREFIX))
            found.setdefault((bare, factor["rest"]), []).append((factor["experts"], int(factor["index"])))
    return all(
        [index for _, index in sorted(places)] == sorted(index for _, index in places)
        for places in found.values()
    )


def why_expert_not_loaded(model: LoadedModel, matrix: ExpertMatrix) -> tuple[DropCause, str] | None:
    """Why PEFT drops the factors; None if it loads them. PEFT names the factors of the last parameter without
    `base_layer`, and all others with it.
    """
    if matrix.parameter not in model.names.parameters:
        return "name", f"the model has no {matrix.parameter}"
    if not model.targets.includes_parameter(matrix.parameter):
        return "not_targeted", f"target_modules does not include {matrix.parameter}"
    if not model.targets.includes_parameter(matrix.last):
        return "name", f"PEFT has no {BASE_LAYER[1:]} there, since the config does not target {matrix.last}"
    return None


def expert_problems(model: LoadedModel) -> Iterator[str]:
    """A sentence for each kind of layer whose experts PEFT cannot fuse."""
    if not keeps_experts_apart(model.adapter.tensors):
        yield (
            "PEFT fuses the factors of experts in the order of their names in the file; these are not alike"
            f" (some lack {PREFIX}, or have another module's name), so experts would get others' factors"
        )
    ranks: dict[str, dict[tuple[int, str], int]] = {}
    fused: dict[str, ExpertMatrix] = {}
    dtypes: dict[tuple[str, str], set[str]] = {}
    for module in model.adapter.spec.modules:
        matrix = expert_matrix(bare_path(module.path), model.model_type)
        if matrix is not None and why_expert_not_loaded(model, matrix) is None:
            fused[matrix.parameter] = matrix
            ranks.setdefault(matrix.parameter, {})[matrix.index, matrix.name] = module.rank
            for role, name in module.tensors.items():
                dtypes.setdefault((matrix.parameter, role), set()).add(model.adapter.tensors[name].dtype)
    reasons = [_problem(model, fused[parameter], held) for parameter, held in ranks.items()]
    reasons += [_router_problem(model, bare_path(one.path), one.rank) for one in model.adapter.spec.modules]
    reasons += [_mixed_dtypes(parameter, found) for (parameter, _), found in dtypes.items()]
    yield from dict.fromkeys(filter(None, reasons))


def _router_problem(model: LoadedModel, path: str, rank: int) -> str | None:
    name = _router_parameter(model, path)
    expected = scale_of(model.adapter.config, name)[2] if name else rank
    if expected == rank:
        return None
    (folded,) = fold_layer_numbers([path])
    return f"PEFT looks up the rank of {folded} as that of its parameter, {expected}, but the file has {rank}"


def _mixed_dtypes(parameter: str, dtypes: set[str]) -> str | None:
    """Why PEFT cannot join the factors: torch does not promote float8 when it concatenates tensors."""
    if len(dtypes) == 1 or not any(dtype.startswith("F8") for dtype in dtypes):
        return None
    (name,) = fold_layer_numbers([parameter])
    return f"PEFT cannot join factors of {' and '.join(sorted(dtypes))} into {name}"


def _problem(model: LoadedModel, matrix: ExpertMatrix, ranks: dict[tuple[int, str], int]) -> str | None:
    (parameter,) = fold_layer_numbers([matrix.parameter])
    shape = model.names.parameters.get(matrix.parameter)
    if not shape:
        return None  # reported as missing
    lacking = {(index, name) for index in range(shape[0]) for name in matrix.beside} ^ ranks.keys()
    if lacking:
        index, name = min(lacking)
        verb = "lacks" if (index, name) not in ranks else "also has"
        wanted = f"{' and '.join(matrix.beside)} of {shape[0]:,} experts"
        return f"PEFT fuses {wanted} into {parameter}, but the file {verb} {name} of expert {index}"
    _, _, rank = _fused_scale(model, matrix)
    found = {name: {ranks[index, name] for index in range(shape[0])} for name in matrix.beside}
    if any(len(each) > 1 for each in found.values()) or sum(map(min, found.values())) != rank:
        return f"PEFT fuses {_listed(found)} into {parameter}, for which the config declares rank {rank}"
    return None


def _listed(found: dict[str, set[int]]) -> str:
    def of(ranks: Iterable[int]) -> str:
        return " or ".join(map(str, sorted(ranks)))

    return " and ".join(f"{name} of rank {of(ranks)}" for name, ranks in found.items())
