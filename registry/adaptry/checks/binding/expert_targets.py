"""The targets that PEFT makes of a LoRA's config in families whose experts transformers 5 fuses.

A config of transformers 4 lists the matrices of experts (`gate_proj`). In these families, PEFT replaces every
such name by the fused parameter (`gate_up_proj`), so shared experts and dense layers with that name lose
their targets. A pattern becomes the list of the last parts of the names that it matches (PEFT 0.21,
`_convert_peft_config_moe`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from adaptry.bases.model_classes import EXPERT_MATRICES, expert_family
from adaptry.bases.model_names import ModelNames
from adaptry.checks.binding.targets import ModuleTargets, is_embedding
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ExpertTargets:
    """`modules` and `parameters` replace the config's `target_modules` and `target_parameters`. `fused` are
    the parameters for which `target_modules` selected every matrix. `halves` are matrices that it selects
    without the others of their parameter, which PEFT refuses.
    """

    modules: tuple[str, ...]
    parameters: frozenset[str]
    fused: frozenset[str]
    halves: tuple[str, ...]


def expert_targets(
    targets: ModuleTargets, listed: object, parameters: Iterable[str], names: ModelNames, model_type: str
) -> ExpertTargets | None:
    """The targets; None if PEFT keeps those of the config. `listed` and `parameters` are the fields of the
    config.
    """
    matrices = EXPERT_MATRICES.get(expert_family(model_type))
    if matrices is None:
        return None
    if isinstance(listed, str):
        listed = sorted(_last_names(targets, names, matrices))
        if not listed:
            return None
    wanted = [target for target in listed if isinstance(target, str)] if isinstance(listed, list) else []
    replaced = {target: matrices.get(target.rpartition(".")[2]) for target in wanted}
    found = {target.rpartition(".")[2] for target, parameter in replaced.items() if parameter}
    beside: dict[str, set[str]] = {}
    for name, parameter in matrices.items():
        beside.setdefault(parameter, set()).add(name)
    return ExpertTargets(
        tuple(target for target, parameter in replaced.items() if parameter is None),
        frozenset([*parameters, *filter(None, replaced.values())]),
        frozenset(parameter for parameter, names_of_it in beside.items() if names_of_it <= found),
        tuple(name for name in matrices if name in found and not beside[matrices[name]] <= found),
    )


def _last_names(targets: ModuleTargets, names: ModelNames, matrices: Mapping[str, str]) -> Iterator[str]:
    """The last names of modules and parameters that a text selects, and of matrices that were fused."""
    if targets.is_all_linear:
        yield from matrices
        paths: Iterable[str] = (path for path in names.holders_of("weight", 2) if not is_embedding(path))
        yield from {path.rpartition(".")[2] for path in paths if targets.reason_not_adapted(path) is None}
        return
    probes = [
        f"{name.rpartition('.')[0]}.{old}"
        for old, new in matrices.items()
        for name in names.parameters
        if name.endswith(f".{new}") or name == new
    ]
    keys = {*names.modules, *names.parameters, *probes}
    targets.prepare(keys)
    yield from {key.rpartition(".")[2] for key in keys if targets.reason_not_adapted(key) is None}
