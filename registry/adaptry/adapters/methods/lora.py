"""LoRA, in every form that PEFT 0.21 writes.

Every tensor is assigned to the module it updates or to the weight it replaces. Tensors that match no rule are
*unclaimed*, because PEFT silently drops such keys. Ranks come from the tensors, alpha and the flags from the
config (arXiv 2106.09685; PEFT's `LoraConfig` and `tuners/lora`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import TensorInfo
from adaptry.adapters.methods import target_parameters
from adaptry.adapters.methods.extras import PREFIX, extra_weight, is_duplicate_of_saved
from adaptry.adapters.methods.lora_config import SUBTRACTING, lora_variant, scale_of, unmergeable_reason
from adaptry.adapters.methods.lora_merge import (
    bias_formula,
    merge_bias,
    merge_formula,
    merge_rows,
    merge_weight,
)
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes, WeightSides
from adaptry.adapters.spec import ExtraWeight, ModuleKind, ModuleSpec
from adaptry.core.lazy_pattern import lazy_pattern

# The endings that may follow a module's path, and their roles. PEFT loads an adapter as `default`, so it also
# accepts that name inside (`lora_A.default.weight`) and drops all others.
_ROLES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (lazy_pattern(rf"(?P<path>.+?)\.{tail}"), role)
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


_OUT_PROJ = ".base_layer.out_proj"
"""How the path of a `MultiheadAttention`'s output projection ends."""


def describe(
    config: AdapterConfig, tensors: Mapping[str, TensorInfo]
) -> tuple[list[ModuleSpec], list[ExtraWeight], list[str]]:
    """Modules, extra weights and unclaimed tensors, each in path order."""
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
                unclaimed.append(name)  # the same factor twice: a loader would keep only one
        elif (extra := extra_weight(key, name, info, config)) is not None:
            extras.append(extra)
        else:
            unclaimed.append(name)
    config.patterns.prepare(path.removesuffix(_OUT_PROJ).replace(".base_layer", "") for path in roles)
    wrapped = target_parameters.parameter_paths(config, roles)
    config.patterns.prepare(
        f"{path.replace('.base_layer', '')}.{parameter}" for path, parameter in wrapped.items() if parameter
    )
    variant = lora_variant(config)
    modules: list[ModuleSpec] = []
    for path, named in roles.items():
        module = _module(path, named, tensors, variant.blocks(path), wrapped)
        if module is None:
            unclaimed.extend(named.values())
        else:
            scale, alpha, _ = scale_of(config, module.name)
            modules.append(module.model_copy(update={"scale": scale, "alpha": alpha}))
    return (
        sorted(modules, key=lambda module: module.path),
        sorted(extras, key=lambda extra: extra.target),
        sorted(unclaimed),
    )


def role_of(key: str) -> tuple[str, str] | None:
    """(module path, role) of a key without its prefix, or None if it is not part of a LoRA."""
    for pattern, role in _ROLES:
        if match := pattern.fullmatch(key):
            rest = match.groupdict().get("rest")
            return match["path"], f"{role}.{rest}" if rest else role
    return None


def _module(
    path: str,
    named: dict[str, str],
    tensors: Mapping[str, TensorInfo],
    blocks: tuple[int, int],
    wrapped: Mapping[str, str | None],
) -> ModuleSpec | None:
    """The module of a set of tensors, without its scale; None if they are not a pair of factors. `blocks` are
    the numbers of diagonal blocks of A and B.
    """
    kind: ModuleKind
    if {"A", "B"} <= named.keys():
        down, up = tensors[named["A"]].shape, tensors[named["B"]].shape
        if len(down) < 2 or len(up) != len(down):
            return None
        for_down, for_up = blocks
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
    return ModuleSpec(
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


def _linear_kind(path: str, wrapped: Mapping[str, str | None]) -> ModuleKind:
    if path.endswith(_OUT_PROJ):
        return "attention"
    return "parameter" if path in wrapped or path.endswith(".base_layer") else "linear"


def _mismatch(module: ModuleSpec, shapes: Shapes, config: AdapterConfig, weight: WeightSides) -> str | None:
    """Why the kernel, the biases (one per output) or the magnitudes do not fit the base's weight."""
    kernel = shapes["A"][2:] if "A" in shapes else ()
    if weight.kernel and (kernel != weight.kernel or set(shapes["B"][2:]) != {1}):
        return f"has a kernel of {list(kernel)}, but this base's is {list(weight.kernel)}"
    if shapes.get("B_bias", (weight.fan_out,)) != (weight.fan_out,):
        biases = list(shapes["B_bias"])
        return f"has biases of {biases}, but this base's weight has {weight.fan_out:,} outputs"
    if "magnitude" not in shapes:
        return None
    wanted = (1, weight.fan_out, *(1 for _ in kernel)) if weight.kernel else (weight.fan_out,)
    if shapes["magnitude"] == wanted:
        return None
    return (
        f"has magnitudes of {list(shapes['magnitude'])}, but for this base's weight they are {list(wanted)}"
    )


METHOD = Method(
    name="lora",
    title="LoRA",
    key_patterns={},  # `describe` above recognises LoRA's forms
    module_size=lambda shapes, config: ModuleSize(0, 0, 0),
    products=(("A", "B"), ("embedding_A", "embedding_B"), ("B_bias",)),
    base_numbers="magnitude",
    is_relative=lambda traits: not SUBTRACTING.isdisjoint(traits),
    may_cancel=lambda traits: "orthogonal" in traits,
    weight=merge_weight,
    rows=merge_rows,
    formula=merge_formula,
    bias=merge_bias,
    bias_formula=bias_formula,
    changes_bias=lambda module: "B_bias" in module.tensors,
    lora_form="itself",
    lora_form_of_variant=lambda config: lora_variant(config).lora_form,
    lora_rank=lambda module, config: module.rank * (2 if lora_variant(config).subtracts_from_base else 1),
    mismatch=_mismatch,
    tolerance=(
        "bit-equal; on convolutions, and for PiSSA, OLoRA and KaSA, only with the same libraries in torch and"
        " number of threads, otherwise within rounding"
    ),
    unmergeable_reason=unmergeable_reason,
    depends_on_base=lambda config: lora_variant(config).depends_on_base,
)
