"""The adapter methods: for each, how its tensors and config become a `Spec`.

Adding a method is one file and one entry in `METHODS`. A method we have no file for is described
generically (its tensors are counted and named) and never refused for being new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.header import TensorInfo
from adaptry.adapter.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.errors import InvalidConfig
from adaptry.methods import lora

Described = tuple[list[ModuleSpec], list[ExtraWeight], list[str]]


@dataclass(frozen=True, slots=True)
class Method:
    """How one method is read.

    `describe` gives modules, extra weights and unclaimed tensors; `traits` what limits its use.
    """

    name: str
    describe: Callable[[AdapterConfig, Mapping[str, TensorInfo]], Described]
    traits: Callable[[AdapterConfig, list[ModuleSpec], list[ExtraWeight]], list[str]]


METHODS: Mapping[str, Method] = {
    "LORA": Method("lora", lora.describe, lora.traits),
}


def describe(config: AdapterConfig, tensors: Mapping[str, TensorInfo]) -> Spec:
    """What an adapter is. Raises `InvalidConfig` where the config contradicts itself."""
    if not config.peft_type or not config.peft_type.replace("_", "").isalnum():
        raise InvalidConfig("adapter_config.json has no peft_type: is this an adapter that PEFT wrote?")
    method = METHODS.get(config.peft_type)
    if method:
        modules, extras, unclaimed = method.describe(config, tensors)
        traits = method.traits(config, modules, extras)
    else:
        modules, extras, unclaimed, traits = [], [], [], ["not_described"]
    return Spec(
        method=config.peft_type.lower(),
        modules=tuple(modules),
        extras=tuple(extras),
        unclaimed=tuple(unclaimed),
        traits=tuple(traits),
        dtypes=tuple(sorted({info.dtype for info in tensors.values()})),
        parameters=sum(info.numel for info in tensors.values()),
        size=sum(info.size for info in tensors.values()),
        base_name=config.base_name,
        task=_text(config, "task_type"),
        peft_version=_text(config, "peft_version"),
    )


def _text(config: AdapterConfig, key: str) -> str | None:
    value = config.fields.get(key)
    return value[:128] if isinstance(value, str) else None
