"""Which 3-D parameter a pair of factors belongs to, where PEFT was told `target_parameters` (§4.7).

PEFT wraps the module that holds the parameters once for each, the last one outermost, and writes factors under the
module's path with one `base_layer` for every wrapper around. The parameter's own name, which
`rank_pattern` speaks of, is written nowhere: it follows from the order in which the module has its parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.patterns import compile_suffix
from adaptry.adapter.spec import Spec
from adaptry.errors import InvalidConfig, Refused

# In the order of every module of experts in transformers 5.
_ORDER = (
    *("gate_proj", "gate_up_proj", "gate_up_proj_bias"),
    *("up_proj", "up_proj_bias", "down_proj", "down_proj_bias"),
)


def was_turned(peft_version: str | None) -> bool:
    """Whether the PEFT that wrote it takes every 3-D parameter for [experts, in, out]: before 0.19."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})", peft_version or "")
    return match is not None and (int(match[1]), int(match[2])) < (0, 19)


def require_not_turned(spec: Spec) -> None:
    """Raises `Refused` for factors of 3-D parameters that nobody but a merge takes for what they are."""
    if was_turned(spec.peft_version):
        raise Refused(
            f"its fused experts were written by PEFT {spec.peft_version}, which has them the other way round than PEFT 0.19 "
            "and later: merge it (adaptry merge --base BASE REF -o DIR)"
        )


def wrapped(config: AdapterConfig, paths: Iterable[str]) -> dict[str, str | None]:
    """The paths that stand for a parameter of their module, and its name; None where the config leaves it open."""
    targets = config.names("target_parameters")
    if not targets:
        return {}
    modules: dict[str, dict[int, str]] = {}
    for path in paths:
        modules.setdefault(path.replace(".base_layer", ""), {})[path.count(".base_layer")] = path
    found: dict[str, str | None] = {}
    for name, levels in modules.items():
        named, loose = _targeted(name, targets, config)
        if not named | loose:
            continue
        parameters = next((each for each in (named, named | loose) if len(each) == len(levels)), set())
        ordered = in_order(parameters)
        for place, (_, path) in enumerate(sorted(levels.items(), reverse=True)):
            found[path] = ordered[place] if ordered else None
    return found


def _targeted(name: str, targets: Iterable[str], config: AdapterConfig) -> tuple[set[str], set[str]]:
    """The parameters targeted with the module `name`, and those targeted without one (`gate_up_proj`).

    The latter may be of any module but those of target_modules, which PEFT keeps apart.
    """
    named, loose = set(), set()
    for target in targets:
        parent, _, parameter = target.rpartition(".")
        if not parent:
            loose.add(parameter)
        elif name == parent or name.endswith(f".{parent}"):
            named.add(parameter)
    return named, set() if _is_module_target(name, config) else loose


def _is_module_target(name: str, config: AdapterConfig) -> bool:
    targets = config.fields.get("target_modules")
    if isinstance(targets, list):
        return any(name == target or name.endswith(f".{target}") for target in targets)
    if not isinstance(targets, str):
        return False
    try:
        return targets.lower() == "all-linear" or compile_suffix(targets).match(name) is not None
    except InvalidConfig:
        return True  # said by the checks, as `pattern_refused`


def in_order(parameters: set[str]) -> list[str]:
    """In the order of the module; nothing where that is not known."""
    if len(parameters) > 1 and not parameters <= set(_ORDER):
        return []
    return sorted(parameters, key=lambda name: _ORDER.index(name) if name in _ORDER else 0)
