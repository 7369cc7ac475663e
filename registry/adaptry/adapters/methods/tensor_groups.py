"""Groups an adapter's tensors by role, with a method's `key_patterns` and `shared` names. No tensor is left
out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods.extras import PREFIX, extra_weight, is_duplicate_of_saved
from adaptry.adapters.methods.method import Method
from adaptry.adapters.spec import ExtraWeight, ModuleSpec

_MODEL = "base_model."


class GroupedTensors:
    """The contents of a file: modules, extra weights, shared tensors by role, and unclaimed tensors."""

    def __init__(self) -> None:
        self.modules: list[ModuleSpec] = []
        self.extras: list[ExtraWeight] = []
        self.shared: dict[str, str] = {}
        self.unclaimed: list[str] = []


def group_tensors(method: Method, config: AdapterConfig, tensors: Mapping[str, TensorInfo]) -> GroupedTensors:
    """Puts every tensor into exactly one group. Raises `InvalidConfig` if the config contradicts itself."""
    found = GroupedTensors()
    named: dict[str, dict[str, str]] = {}
    for name, info in tensors.items():
        is_inside = name.startswith(method.prefix)
        shared = None if is_inside else method.shared_role(name.removeprefix(_MODEL))
        if shared is not None:
            if found.shared.setdefault(shared, name) != name:
                found.unclaimed.append(name)  # also under the adapter's name
            continue
        key = name.removeprefix(method.prefix)
        if not is_inside or key.startswith(PREFIX):
            found.unclaimed.append(name)
        elif is_duplicate_of_saved(key, tensors, config):
            continue
        elif (replacing := method.replacement_of(key, name, info)) is not None:
            found.extras.append(replacing)
        elif (placed := method.role(key)) is not None:
            if named.setdefault(placed[0], {}).setdefault(placed[1], name) != name:
                found.unclaimed.append(name)  # the same role twice: a loader would keep only one
        elif (extra := extra_weight(key, name, info, config)) is not None:
            found.extras.append(extra)
        else:
            found.unclaimed.append(name)
    config.patterns.prepare(named)
    for path, roles in sorted(named.items()):
        module = _module(method, config, path, roles, found.shared, tensors)
        if module is None:
            found.unclaimed.extend(roles.values())
        else:
            found.modules.append(module)
    if not method.names_modules(config) and not _is_whole(method, config, found.shared, tensors):
        found.unclaimed.extend(found.shared.values())
        found.shared = {}
    found.extras.sort(key=lambda extra: extra.target)
    found.unclaimed.sort()
    return found


def contradiction(
    method: Method, config: AdapterConfig, names: Iterable[str], tensors: Mapping[str, TensorInfo]
) -> str | None:
    """A sentence about a module whose tensors, among the unclaimed ones `names`, contradict the config; None
    if tensors are only missing.
    """
    named: dict[str, dict[str, str]] = {}
    for name in names:
        if name.startswith(method.prefix) and (placed := method.role(name.removeprefix(method.prefix))):
            named.setdefault(placed[0], {})[placed[1]] = name
    shared = {role: name for name in tensors if (role := method.shared_role(name.removeprefix(_MODEL)))}
    for path, roles in sorted(named.items()):
        try:
            method.module_size(
                {role: tensors[name].shape for role, name in {**shared, **roles}.items()}, config
            )
        except (KeyError, IndexError):
            continue
        except ValueError as error:
            has_other_dimensions = "values to unpack" in str(error)
            why = "a tensor has more or fewer dimensions than PEFT's" if has_other_dimensions else error
            return f"{path}: {why}"
    return None


def _is_whole(
    method: Method, config: AdapterConfig, shared: Mapping[str, str], tensors: Mapping[str, TensorInfo]
) -> bool:
    """Whether the shared tensors of a file without module names match its config."""
    try:
        method.module_size({role: tensors[name].shape for role, name in shared.items()}, config)
    except (KeyError, IndexError, ValueError):
        return False
    return True


def _module(
    method: Method,
    config: AdapterConfig,
    path: str,
    roles: dict[str, str],
    shared: Mapping[str, str],
    tensors: Mapping[str, TensorInfo],
) -> ModuleSpec | None:
    """The module of a set of tensors; None unless the set is complete, with matching shapes."""
    shapes = {role: tensors[name].shape for role, name in {**shared, **roles}.items()}
    try:
        width = method.module_size(shapes, config)
    except (
        KeyError,
        IndexError,
        ValueError,
    ):  # a tensor is missing, or has dimensions that the method does not write
        return None
    filled = roles.keys() - method.empty_roles(config, path)
    if width.rank and any(0 in tensors[roles[role]].shape for role in filled):
        return None
    bare = ModuleSpec(
        path=path,
        kind=width.kind,
        rank=width.rank,
        alpha=0.0,
        scale=1.0,
        fan_in=width.fan_in,
        fan_out=width.fan_out,
        tensors=roles,
    )
    scale = method.scale(config, bare)
    return bare.model_copy(update={"scale": scale, "alpha": scale * width.rank})
