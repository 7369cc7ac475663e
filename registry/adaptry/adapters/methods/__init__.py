"""The PEFT methods: for each, how a `Spec` is derived from its tensors and config, and how it changes a
weight.

To add a method, write one file and one entry in `METHODS`. A method without a file is described generically
(its tensors are counted and named), and never refused for being new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.key_layout import detect_layouts
from adaptry.adapters.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.core.errors import InvalidConfig
from adaptry.core.lazy_table import LazyTable

if TYPE_CHECKING:
    from adaptry.adapters.methods.method import Method

METHODS: Mapping[str, Method] = LazyTable(
    __name__,
    {
        "lora": "lora:METHOD",
        "ia3": "ia3:METHOD",
        "loha": "loha:METHOD",
        "prompt_tuning": "prompts:PROMPT_TUNING",
        "p_tuning": "prompts:P_TUNING",
        "multitask_prompt_tuning": "prompts:MULTITASK_PROMPT_TUNING",
        "cpt": "prompts:CPT",
        "prefix_tuning": "prefixes:PREFIX_TUNING",
        "cartridge": "prefixes:CARTRIDGE",
        "adaption_prompt": "adaption_prompt:METHOD",
        "lily": "lily:METHOD",
        "poly": "poly:METHOD",
        "shadow": "shadow:METHOD",
        "xlora": "xlora:METHOD",
        "adamss": "adamss:METHOD",
        "beft": "beft:METHOD",
        "boft": "boft:METHOD",
        "deft": "deft:METHOD",
        "frod": "frod:METHOD",
        "glora": "glora:METHOD",
        "hira": "hira:METHOD",
        "hra": "hra:METHOD",
        "ln_tuning": "ln_tuning:METHOD",
        "oft": "oft:METHOD",
        "osf": "osf:METHOD",
        "peanut": "peanut:METHOD",
        "psoft": "psoft:METHOD",
        "road": "road:METHOD",
        "trainable_tokens": "trainable_tokens:METHOD",
        "adalora": "adalora:METHOD",
        "c3a": "c3a:METHOD",
        "delora": "delora:METHOD",
        "fourierft": "fourierft:METHOD",
        "gralora": "gralora:METHOD",
        "lokr": "lokr:METHOD",
        "pvera": "pvera:METHOD",
        "randlora": "randlora:METHOD",
        "shira": "shira:METHOD",
        "supertuning": "supertuning:METHOD",
        "tinylora": "tinylora:METHOD",
        "unilora": "unilora:METHOD",
        "vblora": "vblora:METHOD",
        "vera": "vera:METHOD",
        "waveft": "waveft:METHOD",
        "miss": "miss:METHOD",
        "bone": "miss:BONE",
    },
)
"""Every method; a method is imported when it is looked up."""


def describe(config: AdapterConfig, tensors: Mapping[str, TensorInfo]) -> Spec:
    """The spec of an adapter. Raises `InvalidConfig` if the adapter's config contradicts itself."""
    if not config.peft_type or not config.peft_type.replace("_", "").isalnum():
        raise InvalidConfig("adapter_config.json has no peft_type: is this an adapter that PEFT wrote?")
    name = config.peft_type.lower()
    method = METHODS.get(name)
    modules: list[ModuleSpec] = []
    extras: list[ExtraWeight] = []
    shared: dict[str, str] = {}
    unclaimed: list[str] = []
    tokens: int | None = None
    if method is None:
        traits = ["not_described"]
    elif name == "lora":
        from adaptry.adapters.methods import lora, lora_config

        modules, extras, unclaimed = lora.describe(config, tensors)
        traits = lora_config.lora_traits(config, modules, extras)
    else:
        from adaptry.adapters.methods.extras import extra_traits
        from adaptry.adapters.methods.tensor_groups import group_tensors

        found = group_tensors(method, config, tensors)
        modules, extras, shared, unclaimed = found.modules, found.extras, found.shared, found.unclaimed
        traits = sorted({*method.traits(config), *extra_traits(extras)})
        tokens = method.virtual_tokens(
            config, {role: tensors[tensor].shape for role, tensor in shared.items()}
        )
    return Spec(
        method=name,
        modules=tuple(modules),
        extras=tuple(extras),
        shared=shared,
        virtual_tokens=tokens,
        unclaimed=tuple(unclaimed),
        traits=tuple(traits),
        layouts=detect_layouts(module.path for module in modules),
        dtypes=tuple(sorted({info.dtype for info in tensors.values()})),
        parameters=sum(info.numel for info in tensors.values()),
        size=sum(info.size for info in tensors.values()),
        base_name=config.base_name,
        task=config.text("task_type"),
        peft_version=config.text("peft_version"),
    )
