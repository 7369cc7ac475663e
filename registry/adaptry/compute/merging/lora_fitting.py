"""What must hold of a LoRA's tensors beside its base: all parts of its config, in the weight's shapes.

PEFT fills what is missing with its initial values and drops what it does not expect, both without a word that
anyone reads. Here either is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.header import FLOATS
from adaptry.adapters.methods.lora import scale_of
from adaptry.adapters.methods.lora_config import blocks, initialisation, other_roles
from adaptry.adapters.methods.target_parameters import is_transposed_by_peft
from adaptry.adapters.spec import ModuleSpec, Spec
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ModuleMap, TargetTensor
from adaptry.core.errors import CheckFailed, Unsupported

# Models whose experts are stored [experts, in, out]: where in = out, shapes cannot tell (transformers'
# is_transposed).
TURNED_EXPERTS = frozenset(["gpt_oss", "aria", "aria_text", "openai_privacy_filter"])


def check_lora(label: str, adapter: Adapter, target: TargetTensor, shape: tuple[int, ...]) -> None:
    """One module against a weight of `shape`. Raises `CheckFailed`, `Unsupported`."""
    module = target.module
    _check_roles(label, module, adapter.config)
    roles = ("embedding_A", "embedding_B") if module.kind == "embedding" else ("A", "B")
    down, up = (adapter.tensors[module.tensors[role]] for role in roles)
    if not (down.numel and up.numel):
        raise CheckFailed(f"{label}: the factors of {module.path} are empty, so it was never trained")
    if not {down.dtype, up.dtype} <= FLOATS:
        raise Unsupported(
            f"{label}: the factors of {module.path} are {down.dtype} and {up.dtype}, and only floating-point"
            " ones are merged"
        )
    for_down, for_up = blocks(adapter.config, module.path)
    if module.kind == "conv" and up.shape[1] < module.rank and module.rank % up.shape[1] == 0:
        raise Unsupported(
            f"{label}: {module.path} is a convolution in groups, and PEFT defines no merge of a LoRA on one:"
            " serve it with PEFT"
        )
    if down.shape[0] != module.rank or up.shape[1] * for_up != module.rank or module.rank % for_down:
        raise CheckFailed(
            f"{label}: the factors of {module.path} do not multiply: lora_B {list(up.shape)} by "
            f"lora_A {list(down.shape)}"
        )
    if not _fits(target, down.shape, shape):
        raise CheckFailed(
            f"{label}: {module.path} changes a weight of {module.fan_out}×{module.fan_in}, and"
            f" {target.tensor} is {'×'.join(map(str, shape))}: this is not the base it was trained on"
        )
    _check_start(label, target, adapter.config, shape)


def placed_for_lora(target: TargetTensor, config: AdapterConfig) -> TargetTensor:
    """With the scale of its own patterns: a parameter's match its name, which the base has."""
    if target.module.kind != "parameter" or not (
        config.pattern_values("rank_pattern") or config.pattern_values("alpha_pattern")
    ):
        return target
    name = target.expert.parameter if target.expert else target.tensor
    scale, alpha, _ = scale_of(config, name)
    return replace(target, module=target.module.model_copy(update={"scale": scale, "alpha": alpha}))


def stored_orientation(target: TargetTensor, checkpoint: HfCheckpoint, spec: Spec) -> str:
    """`target.orientation`, and of experts also whether the factors are of what is stored [in, out]."""
    if target.orientation != "parameter":
        return target.orientation
    module, shape = target.module, checkpoint.tensors[target.tensor].shape
    if module.fan_in == module.fan_out:  # the shapes do not tell
        is_stored_turned = len(shape) == 3 and checkpoint.config.get("model_type") in TURNED_EXPERTS
        is_turned = is_stored_turned or is_transposed_by_peft(spec.peft_version)
    else:
        is_turned = len(shape) == 3 and shape[1:] == (module.fan_in, module.fan_out)
    return "parameter_turned" if is_turned else "parameter"


def notes_of_lora(label: str, adapter: Adapter, module_map: ModuleMap) -> Iterator[str]:
    """What a reader should know of how it is merged."""
    if any(placed.module.kind == "attention" for placed in module_map.placed):
        yield (
            f"{label} changes a MultiheadAttention: PEFT applies the update of its out_proj twice, in"
            " training and in its merge, and so does this merge"
        )
    init = initialisation(adapter.config)
    if init in ("pissa", "olora") or adapter.config.fields.get("kasa_config"):
        yield (
            f"{label} took part of the base's weights into itself ({init or 'KaSA'}): that part is computed"
            " again from this base, so the result is right only if it was trained on these very weights"
        )


def _check_roles(label: str, module: ModuleSpec, config: AdapterConfig) -> None:
    """Exactly the tensors that the config speaks of. Raises `CheckFailed`."""
    lacking, surplus = other_roles(config, module)
    if not lacking and not surplus:
        return
    what = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(surplus)}"
    raise CheckFailed(
        f"{label}: {module.path} {what}, against what adapter_config.json says (use_dora, lora_bias,"
        " kasa_config); save the adapter again from the trained model"
    )


def _fits(target: TargetTensor, down: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    wanted = (target.module.fan_out, target.module.fan_in)
    if target.expert is not None:
        return target.module.rank % target.expert.count == 0
    match target.orientation:
        case "embedding" | "conv1d":
            return shape == wanted[::-1]
        case "conv":
            return shape == (*wanted, *down[2:])
        case "parameter" if len(shape) == 3:
            return shape[1:] in (wanted, wanted[::-1]) and target.module.rank % shape[0] == 0
        case _:
            return shape == wanted


def _check_start(label: str, target: TargetTensor, config: AdapterConfig, shape: tuple[int, ...]) -> None:
    """Variants that exist for some kinds of layer only: elsewhere nothing defines what they would be."""
    is_matrix = target.orientation in ("linear", "conv1d") and target.module.kind == "linear"
    init = initialisation(config)
    name = "KaSA" if config.fields.get("kasa_config") else init
    if name in ("KaSA", "pissa", "olora") and not is_matrix:
        raise Unsupported(
            f"{label}: {name} on {target.module.path}, a {target.module.kind} layer,"
            " is not defined by PEFT either"
        )
    if name == "KaSA" and (target.orientation != "linear" or target.module.rank >= min(shape)):
        raise Unsupported(
            f"{label}: KaSA on {target.module.path} is not defined: it wants a Linear wider than its rank"
        )
    if "B_bias" in target.module.tensors and target.orientation == "attention":
        raise Unsupported(
            f"{label}: PEFT ignores lora_bias on {target.module.path}, a MultiheadAttention, in training and"
            " merging; train with lora_bias=False"
        )
