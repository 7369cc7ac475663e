"""LoRA, in the whole breadth in which PEFT 0.21 writes it.

Every tensor is given to the module it updates or to the weight it replaces; what no rule knows is left
*unclaimed*, because PEFT drops such keys without a word. Ranks come from the tensors, alpha and the flags
from the config (arXiv 2106.09685; PEFT's `LoraConfig` and `tuners/lora`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from adaptry.adapter.config import AdapterConfig
from adaptry.adapter.header import TensorInfo
from adaptry.adapter.patterns import compile_suffix, first_match
from adaptry.adapter.spec import ExtraKind, ExtraWeight, ModuleKind, ModuleSpec
from adaptry.errors import InvalidConfig
from adaptry.methods import parameters

PREFIX = "base_model.model."

# What may follow a module's path, and the role it plays. PEFT also takes a stray adapter name inside
# (`lora_A.default.weight`), so we do.
_ROLES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(rf"(?P<path>.+?)\.{tail}"), role)
    for tail, role in (
        (r"lora_A(?:\.[A-Za-z0-9_-]+)?\.weight", "A"),
        (r"lora_B(?:\.[A-Za-z0-9_-]+)?\.weight", "B"),
        (r"lora_B(?:\.[A-Za-z0-9_-]+)?\.bias", "B_bias"),
        (r"lora_embedding_A(?:\.[A-Za-z0-9_-]+)?", "embedding_A"),
        (r"lora_embedding_B(?:\.[A-Za-z0-9_-]+)?", "embedding_B"),
        (r"lora_magnitude_vector(?:\.[A-Za-z0-9_-]+)?(?:\.weight)?", "magnitude"),
        (r"lora_diag(?:\.[A-Za-z0-9_-]+)?", "diag"),
        (r"lora_velora_embed(?:\.[A-Za-z0-9_-]+)?", "velora_embed"),
        (r"lora_monteclora_sampler\.(?P<rest>[A-Za-z0-9_.-]+)", "monteclora"),
    )
)
_TOKEN_ROWS = re.compile(r"(?P<path>.+)\.token_adapter\.trainable_tokens_delta")
_BASE_LAYER = re.compile(r"(?P<path>.+)\.base_layer\.(?P<parameter>weight|bias)")
_EMBEDDINGS = frozenset(
    [
        "embed_tokens",
        "lm_head",
        "wte",
        "word_embeddings",
        "embed_in",
        "embed_out",
        "tok_embeddings",
        "output",
        "embeddings",
        "shared",
    ]
)

_FLAG_TRAITS = {
    "use_rslora": "rslora",
    "use_dora": "dora",
    "lora_bias": "lora_bias",
    "use_qalora": "qalora",
    "fan_in_fan_out": "fan_in_fan_out",
}
_PRESENT_TRAITS = {
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
    "target_parameters": "target_parameters",
    "layer_replication": "layer_replication",
    "alora_invocation_tokens": "alora",
    "use_bdlora": "bdlora",
    "arrow_config": "arrow",
    "kasa_config": "kasa",
    "velora_config": "velora",
    "monteclora_config": "monteclora",
}
_INITS = ("pissa", "olora", "corda", "lora_ga", "loftq")


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
        if (found := _role(key)) is not None:
            path, role = found
            roles.setdefault(path, {})[role] = name
        elif (extra := _extra(key, name, info, config)) is not None:
            extras.append(extra)
        else:
            unclaimed.append(name)
    wrapped = parameters.wrapped(config, roles)
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


def traits(config: AdapterConfig, modules: list[ModuleSpec], extras: list[ExtraWeight]) -> list[str]:
    """What changes how this LoRA may be used, merged or served."""
    found = {trait for key, trait in _FLAG_TRAITS.items() if config.flag(key)}
    found |= {trait for key, trait in _PRESENT_TRAITS.items() if config.fields.get(key)}
    init = str(config.fields.get("init_lora_weights", "")).lower()
    found |= {name for name in _INITS if init.startswith(name)}
    if config.fields.get("bias") not in (None, "none"):
        found.add("bias")
    if any("magnitude" in module.tensors for module in modules):
        found.add("dora")
    if any("B_bias" in module.tensors for module in modules):
        found.add("lora_bias")
    if refused_patterns(config):
        found.add("pattern_refused")
    found |= {module.kind for module in modules if module.kind != "linear"}
    names = {
        "module": "modules_to_save",
        "bias": "bias",
        "saved_embedding": "saved_embedding",
        "token_rows": "trainable_tokens",
    }
    found |= {names[extra.kind] for extra in extras}
    return sorted(found)


def scale_of(config: AdapterConfig, name: str) -> tuple[float, float, int]:
    """(scale, alpha, rank the config says) for a module's `name`: α/r, or α/√r with rsLoRA (arXiv 2312.03732).

    A pattern that is not matched, because it could run for ever, leaves the default: `pattern_refused` says so.
    """
    rank = AdapterConfig({"r": _valued(config, "rank_pattern", name, config.rank())}).rank()
    alpha = config.number("lora_alpha", 8)
    alpha = AdapterConfig({"lora_alpha": _valued(config, "alpha_pattern", name, alpha)}).number(
        "lora_alpha", alpha
    )
    return (alpha / math.sqrt(rank) if config.flag("use_rslora") else alpha / rank), alpha, rank


def refused_patterns(config: AdapterConfig) -> list[str]:
    """Why the ranks or scales of some modules cannot be told from the config; each a sentence."""
    reasons = []
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in config.pattern_values(key):
            try:
                compile_suffix(pattern)
            except InvalidConfig as error:
                reasons.append(f"{key}: {error.message}")
    return reasons


def _valued(config: AdapterConfig, key: str, name: str, default: object) -> object:
    try:
        return first_match(config.pattern_values(key), name, default)
    except InvalidConfig:
        return default


def _role(key: str) -> tuple[str, str] | None:
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
        rank, fan_in, fan_out = down[0], down[1], up[0]
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


def _extra(key: str, name: str, info: TensorInfo, config: AdapterConfig) -> ExtraWeight | None:
    kind: ExtraKind
    if match := _TOKEN_ROWS.fullmatch(key):
        return ExtraWeight(target=f"{match['path']}.weight", kind="token_rows", tensor=name, shape=info.shape)
    if match := _BASE_LAYER.fullmatch(key):
        kind = "bias" if match["parameter"] == "bias" else "saved_embedding"
        target = f"{match['path']}.{match['parameter']}"
        return ExtraWeight(target=target, kind=kind, tensor=name, shape=info.shape)
    path, _, parameter = key.rpartition(".")
    if not path or "lora_" in key:
        return None
    if any(path.endswith(saved) or f"{saved}." in f"{path}." for saved in config.names("modules_to_save")):
        kind = "module"
    elif parameter == "bias" and config.fields.get("bias") not in (None, "none"):
        kind = "bias"
    elif parameter == "weight" and path.rsplit(".", 1)[-1] in _EMBEDDINGS:
        kind = "saved_embedding"
    else:
        return None
    return ExtraWeight(target=key, kind=kind, tensor=name, shape=info.shape)
