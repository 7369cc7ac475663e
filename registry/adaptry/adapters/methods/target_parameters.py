"""Which 3-D parameter a pair of factors belongs to, if PEFT was configured with `target_parameters` (§4.7).

PEFT wraps the module that has the parameters once for each of them, the last one outermost. It writes factors
under the module's path, with one `base_layer` for every enclosing wrapper. The file does not have the
parameter's name, which `rank_pattern` uses: it follows from the order of the module's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.plain_patterns import dotted_suffixes
from adaptry.adapters.spec import Spec
from adaptry.core.errors import CheckFailed, InvalidConfig

# In the order in which every module of experts in transformers 5 has them.
_ORDER = (
    *("gate_proj", "gate_up_proj", "gate_up_proj_bias"),
    *("up_proj", "up_proj_bias", "down_proj", "down_proj_bias"),
)


def is_transposed_by_peft(peft_version: str | None) -> bool:
    """Whether this version of PEFT treats every 3-D parameter as [experts, in, out]: before 0.19."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})", peft_version or "")
    return match is not None and (int(match[1]), int(match[2])) < (0, 19)


def require_not_transposed(spec: Spec) -> None:
    """Raises `CheckFailed` for factors of 3-D parameters in an orientation that only a merge handles."""
    if is_transposed_by_peft(spec.peft_version):
        raise CheckFailed(
            f"its fused experts were written by PEFT {spec.peft_version}, which transposes them compared with"
            " PEFT 0.19 and later: merge it (adaptry merge --base BASE REF -o DIR)"
        )


def parameter_paths(config: AdapterConfig, paths: Iterable[str]) -> dict[str, str | None]:
    """The parameter's name for each path that stands for a parameter of its module; None if the config does
    not determine it.
    """
    targets = config.names("target_parameters")
    if not targets:
        return {}
    modules: dict[str, dict[int, str]] = {}
    for path in paths:
        modules.setdefault(path.replace(".base_layer", ""), {})[path.count(".base_layer")] = path
    by_module: dict[str, set[str]] = {}
    for target in targets:
        parent, _, parameter = target.rpartition(".")
        by_module.setdefault(parent, set()).add(parameter)
    config.patterns.prepare(modules)
    is_target = _module_targets(config)
    found: dict[str, str | None] = {}
    for name, levels in modules.items():
        named, loose = _targeted(name, by_module), by_module.get("", set())
        if loose and is_target(name):
            loose = set()
        if not named | loose:
            continue
        parameters = next((each for each in (named, named | loose) if len(each) == len(levels)), set())
        ordered = in_module_order(parameters)
        for place, (_, path) in enumerate(sorted(levels.items(), reverse=True)):
            found[path] = ordered[place] if ordered else None
    return found


def _targeted(name: str, by_module: Mapping[str, set[str]]) -> set[str]:
    """The parameters targeted with the module `name`.

    Parameters that are targeted without a module (`gate_up_proj`) may belong to any module except those of
    target_modules, which PEFT treats separately.
    """
    return {parameter for end in dotted_suffixes(name) if end for parameter in by_module.get(end, ())}


def _module_targets(config: AdapterConfig) -> Callable[[str], bool]:
    """Whether target_modules includes a module, by PEFT's rules for a list and for a text."""
    targets = config.fields.get("target_modules")
    if isinstance(targets, list):
        ends = frozenset(target for target in targets if isinstance(target, str))
        return lambda name: not ends.isdisjoint(dotted_suffixes(name))
    if not isinstance(targets, str):
        return lambda name: False
    pattern = targets

    def matches(name: str) -> bool:
        try:
            return pattern.lower() == "all-linear" or config.patterns.matches(pattern, name)
        except InvalidConfig:
            return True  # the checks report it as `pattern_refused`

    return matches


def in_module_order(parameters: set[str]) -> list[str]:
    """The parameters in the module's order; empty if that is unknown."""
    if len(parameters) > 1 and not parameters <= set(_ORDER):
        return []
    return sorted(parameters, key=lambda name: _ORDER.index(name) if name in _ORDER else 0)
