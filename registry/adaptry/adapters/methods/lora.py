"""LoRA, in the whole breadth in which PEFT 0.21 writes it.

Every tensor is given to the module it updates or to the weight it replaces; what no rule knows is left
*unclaimed*, because PEFT drops such keys without a word. Ranks come from the tensors, alpha and the flags
from the config (arXiv 2106.09685; PEFT's `LoraConfig` and `tuners/lora`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods import target_parameters
from adaptry.adapters.methods.extras import PREFIX, extra_weight, is_duplicate_of_saved
from adaptry.adapters.methods.lora_config import (
    blocks,
    depends_on_base,
    lora_form_of_variant,
    subtracts_from_base,
    unmergeable_reason,
)
from adaptry.adapters.methods.lora_merge import merge_bias, merge_weight
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, WeightSides
from adaptry.adapters.spec import ExtraWeight, ModuleKind, ModuleSpec
from adaptry.core.errors import InvalidConfig

# What may follow a module's path, and the role it plays. PEFT loads an adapter as `default`, so it also takes
# that name inside (`lora_A.default.weight`) and drops every other.
_ROLES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?P<path>.+?)\.{tail}"), role)
    for tail, role in (
        (r"lora_A(?:\.default)?\.weight", "A"),
        (r"lora_B(?:\.default)?\.weight", "B"),
        (r"lora_B(?:\.default)?\.bias", "B_bias"),
        (r"lora_embedding_A(?:\.default)?", "embedding_A"),
        (r"lora_embedding_B(?:\.default)?", "embedding_B"),
        (r"lora_magnitude_vector(?:(?:\.default)?\.weight)?", "magnitude"),
        (r"lora_diag(?:\.default)?", "diag"),
        (r"lora_velora_embed(?:\.default)?", "velora_embed"),
        (r"lora_monteclora_sampler\.(?P<rest>[A-Za-z0-9_.-]+)", "monteclora"),
    )
)


def describe(
    config: AdapterConfig, tensors: Mapping[str, TensorInfo]
) -> tuple[list[ModuleSpec], list[ExtraWeight], list[str]]:
    """Modules, extra weights, and the tensors no rule knows; each in path order."""
    roles: dict[str, dict[str, str]] = {}
    extras: list[ExtraWeight] = []
    unclaimed: list[str] = []
    for name, info in tensors.items():
        if not name.startswith(PREFIX) or name.startswith(PREFIX * 2):
            unclaimed.append(name)
            continue
        key = name.removeprefix(PREFIX)
        if is_duplicate_of_saved(key, tensors, config):
            continue
        if (found := role_of(key)) is not None:
            path, role = found
            if roles.setdefault(path, {}).setdefault(role, name) != name:
                unclaimed.append(name)  # under another adapter's name: one of the two would win
        elif (extra := extra_weight(key, name, info, config)) is not None:
            extras.append(extra)
        else:
            unclaimed.append(name)
    config.patterns.prepare(path.replace(".base_layer", "") for path in roles)
    wrapped = target_parameters.parameter_paths(config, roles)
    config.patterns.prepare(
        f"{path.replace('.base_layer', '')}.{parameter}" for path, parameter in wrapped.items() if parameter
    )
    modules: list[ModuleSpec] = []
    for path, named in roles.items():
        module = _module(path, named, tensors, config, wrapped)
        if module is None:
            unclaimed.extend(named.values())
        else:
            modules.append(module)
    return (
        sorted(modules, key=lambda module: module.path),
        sorted(extras, key=lambda extra: extra.target),
        sorted(unclaimed),
    )


def scale_of(config: AdapterConfig, name: str) -> tuple[float, float, int]:
    """(scale, alpha, rank by config) for a module's `name`: α/r, or α/√r with rsLoRA (arXiv 2312.03732).

    If a pattern was refused, the default is left; the trait `pattern_refused` records it. Raises
    `InvalidConfig` for a value that is no rank or no number, `Unavailable` if patterns could not be matched
    now.
    """
    rank = AdapterConfig({"r": _valued(config, "rank_pattern", name, config.rank())}).rank()
    alpha = config.number("lora_alpha", 8)
    alpha = AdapterConfig({"lora_alpha": _valued(config, "alpha_pattern", name, alpha)}).number(
        "lora_alpha", alpha
    )
    return (alpha / math.sqrt(rank) if config.flag("use_rslora") else alpha / rank), alpha, rank


def _valued(config: AdapterConfig, key: str, name: str, default: object) -> object:
    try:
        return config.value_for(key, name, default)
    except InvalidConfig:
        return default


def role_of(key: str) -> tuple[str, str] | None:
    """(module path, role) of a key without its prefix, or None where it is no part of a LoRA."""
    for pattern, role in _ROLES:
        if match := pattern.fullmatch(key):
            rest = match.groupdict().get("rest")
            return match["path"], f"{role}.{rest}" if rest else role
    return None


def _module(
    path: str,
    named: dict[str, str],
    tensors: Mapping[str, TensorInfo],
    config: AdapterConfig,
    wrapped: Mapping[str, str | None],
) -> ModuleSpec | None:
    """The module of a set of tensors, or None where they are no pair of factors."""
    kind: ModuleKind
    if {"A", "B"} <= named.keys():
        down, up = tensors[named["A"]].shape, tensors[named["B"]].shape
        if len(down) < 2 or len(up) < 2:
            return None
        for_down, for_up = blocks(config, path)
        rank, fan_in, fan_out = down[0], down[1] * for_down, up[0]
        if for_up > 1 and rank != up[1] * for_up:
            return None
        kind = "conv" if len(down) > 2 else _linear_kind(path, wrapped)
    elif {"embedding_A", "embedding_B"} <= named.keys():
        down, up = tensors[named["embedding_A"]].shape, tensors[named["embedding_B"]].shape
        if len(down) != 2 or len(up) != 2:
            return None
        rank, fan_in, fan_out, kind = down[0], down[1], up[0], "embedding"
    else:
        return None
    parameter = wrapped.get(path) if kind == "parameter" else None
    module = ModuleSpec(
        path=path,
        kind=kind,
        rank=rank,
        alpha=0,
        scale=0,
        fan_in=fan_in,
        fan_out=fan_out,
        tensors=named,
        parameter=parameter,
    )
    scale, alpha, _ = scale_of(config, module.name)
    return module.model_copy(update={"scale": scale, "alpha": alpha})


def _linear_kind(path: str, wrapped: Mapping[str, str | None]) -> ModuleKind:
    if path.endswith(".base_layer.out_proj"):
        return "attention"
    return "parameter" if path in wrapped or path.endswith(".base_layer") else "linear"


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """The base's kernel, a bias for every output, and a magnitude in a convolution's dimensions."""
    kernel = shapes["A"][2:] if "A" in shapes else ()
    if weight.kernel and (kernel != weight.kernel or set(shapes["B"][2:]) != {1}):
        return f"has a kernel of {list(kernel)}, and this base's is {list(weight.kernel)}"
    if shapes.get("B_bias", (weight.fan_out,)) != (weight.fan_out,):
        return f"has biases of {list(shapes['B_bias'])}, and this base's weight {weight.fan_out:,} outputs"
    if "magnitude" not in shapes:
        return None
    wanted = (1, weight.fan_out, *(1 for _ in kernel)) if weight.kernel else (weight.fan_out,)
    if shapes["magnitude"] == wanted:
        return None
    return (
        f"has magnitudes of {list(shapes['magnitude'])}, and for this base's weight they are {list(wanted)}"
    )


METHOD = Method(
    name="lora",
    title="LoRA",
    key_patterns={},  # `describe` above reads LoRA's many forms
    module_size=lambda shapes, config: ModuleSize(0, 0, 0),
    weight=merge_weight,
    bias=merge_bias,
    changes_bias=lambda module: "B_bias" in module.tensors,
    lora_form="itself",
    lora_form_of_variant=lora_form_of_variant,
    lora_rank=lambda module, config: module.rank * (2 if subtracts_from_base(config) else 1),
    mismatch=_mismatch,
    tolerance=(
        "bit-equal; on convolutions, and for PiSSA, OLoRA and KaSA, where torch's libraries are the same,"
        " on as many threads; else within rounding"
    ),
    unmergeable_reason=unmergeable_reason,
    depends_on_base=depends_on_base,
)
