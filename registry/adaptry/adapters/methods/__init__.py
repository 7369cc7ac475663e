"""The PEFT methods: for each, how a `Spec` is derived from its tensors and config, and how it changes a
weight.

To add a method, write one file and one entry in `METHODS`. A method without a file is described generically
(its tensors are counted and named), and never refused for being new.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.key_layout import detect_layouts
from adaptry.adapters.methods import (
    adalora,
    adamss,
    adaption_prompt,
    beft,
    boft,
    c3a,
    deft,
    delora,
    fourierft,
    frod,
    glora,
    gralora,
    hira,
    hra,
    ia3,
    lily,
    ln_tuning,
    loha,
    lokr,
    lora,
    lora_config,
    miss,
    oft,
    osf,
    peanut,
    poly,
    prefixes,
    prompts,
    psoft,
    pvera,
    randlora,
    road,
    shadow,
    shira,
    supertuning,
    tinylora,
    trainable_tokens,
    unilora,
    vblora,
    vera,
    waveft,
    xlora,
)
from adaptry.adapters.methods.extras import extra_traits
from adaptry.adapters.methods.method import Method
from adaptry.adapters.methods.tensor_grouping import group_tensors
from adaptry.adapters.spec import ExtraWeight, ModuleSpec, Spec
from adaptry.core.errors import InvalidConfig

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        lora.METHOD,
        ia3.METHOD,
        loha.METHOD,
        *prompts.METHODS,
        *prefixes.METHODS,
        adaption_prompt.METHOD,
        lily.METHOD,
        poly.METHOD,
        shadow.METHOD,
        xlora.METHOD,
        adamss.METHOD,
        beft.METHOD,
        boft.METHOD,
        deft.METHOD,
        frod.METHOD,
        glora.METHOD,
        hira.METHOD,
        hra.METHOD,
        ln_tuning.METHOD,
        oft.METHOD,
        osf.METHOD,
        peanut.METHOD,
        psoft.METHOD,
        road.METHOD,
        trainable_tokens.METHOD,
        adalora.METHOD,
        c3a.METHOD,
        delora.METHOD,
        fourierft.METHOD,
        gralora.METHOD,
        lokr.METHOD,
        pvera.METHOD,
        randlora.METHOD,
        shira.METHOD,
        supertuning.METHOD,
        tinylora.METHOD,
        unilora.METHOD,
        vblora.METHOD,
        vera.METHOD,
        waveft.METHOD,
        miss.METHOD,
        miss.BONE,
    )
}


def describe(config: AdapterConfig, tensors: Mapping[str, TensorInfo]) -> Spec:
    """The spec of an adapter. Raises `InvalidConfig` if the config contradicts itself."""
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
        modules, extras, unclaimed = lora.describe(config, tensors)
        traits = lora_config.lora_traits(config, modules, extras)
    else:
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
