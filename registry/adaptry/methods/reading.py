"""Any method's tensors, sorted by what they are: by its `tails` and `shared` names, and nothing left over silently."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.header import TensorInfo
from adaptry.adapter.spec import ExtraWeight, ModuleSpec
from adaptry.methods.extras import PREFIX, extra_weight
from adaptry.methods.method import Method

_MODEL = "base_model."


class Read:
    """What a file holds: modules, extra weights, shared tensors by role, and the tensors no rule knows."""

    def __init__(self) -> None:
        self.modules: list[ModuleSpec] = []
        self.extras: list[ExtraWeight] = []
        self.shared: dict[str, str] = {}
        self.unclaimed: list[str] = []


def read(method: Method, config: AdapterConfig, tensors: Mapping[str, TensorInfo]) -> Read:
    """Every tensor in exactly one place. Raises `InvalidConfig` where the config contradicts itself."""
    found = Read()
    named: dict[str, dict[str, str]] = {}
    for name, info in tensors.items():
        shared = method.shared_role(name.removeprefix(_MODEL)) if not name.startswith(PREFIX) else None
        if shared is not None:
            found.shared[shared] = name
            continue
        key = name.removeprefix(PREFIX)
        if not name.startswith(PREFIX) or key.startswith(PREFIX):
            found.unclaimed.append(name)
        elif (placed := method.role(key)) is not None:
            named.setdefault(placed[0], {})[placed[1]] = name
        elif (extra := extra_weight(key, name, info, config)) is not None:
            found.extras.append(extra)
        else:
            found.unclaimed.append(name)
    for path, roles in sorted(named.items()):
        found.modules.append(_module(method, config, path, roles, tensors))
    found.extras.sort(key=lambda extra: extra.target)
    found.unclaimed.sort()
    return found


def _module(
    method: Method,
    config: AdapterConfig,
    path: str,
    roles: dict[str, str],
    tensors: Mapping[str, TensorInfo],
) -> ModuleSpec:
    shapes = {role: tensors[name].shape for role, name in roles.items()}
    try:
        width = method.width(shapes, config)
    except (KeyError, IndexError):  # a tensor is missing or has another rank than the method writes
        width = None
    bare = ModuleSpec(
        path=path,
        kind=width.kind if width else "other",
        rank=width.rank if width else 0,
        alpha=0.0,
        scale=1.0,
        fan_in=width.fan_in if width else 0,
        fan_out=width.fan_out if width else 0,
        tensors=roles,
    )
    if width is None:
        return bare
    scale = method.scale(config, bare)
    return bare.model_copy(update={"scale": scale, "alpha": scale * width.rank})
