"""Chooses the loaded name to unload when another needs room: the least recently used one that no request
uses.

Clients may request any number of names: a version has several, and a stack one for each choice of weights. So
the number of loaded names is limited, and the number of stacks further, since each has its own files.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.vllm.draining_adapters import ResolvedAdapter
from adaptry.integrations.serving.vllm.engine import InProcessVllm
from adaptry.integrations.serving.vllm.resolver_config import ResolverConfig


def least_recently_used(
    config: ResolverConfig,
    vllm: InProcessVllm,
    names: Mapping[str, ResolvedAdapter],
    *,
    only_stacks: bool = False,
) -> str | None:
    """The name in `names` that has been unused for the longest time, and is neither in use nor pinned nor
    preloaded; with `only_stacks`, only stacks count. None if no name is idle."""
    in_use = vllm.ids_in_use()
    idle = [
        (loaded.used_at, name)
        for name, loaded in names.items()
        if vllm.loaded.get(name) is loaded.request and loaded.lora_id not in in_use
        if name not in config.pin and name not in config.preload
        if loaded.stack_key is not None or not only_stacks
    ]
    return min(idle)[1] if idle else None


def name_to_unload(
    config: ResolverConfig,
    vllm: InProcessVllm,
    names: Mapping[str, ResolvedAdapter],
    target: StackRef,
) -> str | None:
    """The name to unload before `target` is loaded; None if there is room for it, or if no name is idle."""
    is_stack = target.single is None
    if is_stack and sum(one.stack_key is not None for one in names.values()) >= config.most_stacks:
        return least_recently_used(config, vllm, names, only_stacks=True)
    if len(names) >= config.most_names:
        return least_recently_used(config, vllm, names)
    return None
