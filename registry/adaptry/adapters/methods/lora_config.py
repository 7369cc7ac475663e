"""What a LoRA's config says beside its numbers: which variant it is, and whether that can be merged.

Every variant of PEFT 0.21 is a field of one `LoraConfig`; here each gets a name, and a reason where no merge
can be right.
"""

from __future__ import annotations

import re

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.extras import extra_traits
from adaptry.adapters.methods.method import LoraForm
from adaptry.adapters.pattern_process import SUFFIX
from adaptry.adapters.spec import ExtraWeight, ModuleSpec

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
_LEFT_BASES = {
    "pissa_niter": "PiSSA by a randomised decomposition",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
"""Initialisations that took something out of the base that no one can compute again from it."""
INITIALISATIONS = re.compile(r"gaussian|eva|olora|mica|pissa(?:_niter_\d+)?|corda|loftq|orthogonal|lora_ga")
"""The words that PEFT takes for `init_lora_weights`, in lower case."""
_NEVER_MERGED = {
    "alora_invocation_tokens": (
        "it is an aLoRA, which acts only after its invocation tokens: serve it with PEFT or an "
        "engine that knows aLoRA"
    ),
    "arrow_config": (
        "it is an Arrow router, which routes between adapters as it runs: merge one of them alone"
    ),
    "use_qalora": "QA-LoRA belongs to one quantised base: serve it on that",
}


def initialisation(config: AdapterConfig) -> str:
    """`init_lora_weights` as a word; empty for the plain ones (true, false)."""
    value = config.fields.get("init_lora_weights")
    return value.lower() if isinstance(value, str) else ""


def blocks(config: AdapterConfig, path: str) -> tuple[int, int]:
    """Into how many blocks on a diagonal A and B are cut (BD-LoRA); 1 and 1 for a plain LoRA.

    PEFT looks for each of its words anywhere in the module's path.
    """
    settings = config.fields.get("use_bdlora")
    if not isinstance(settings, dict):
        return 1, 1
    names = AdapterConfig(settings)
    count = names.rank("nblocks", 1)
    if any(word in path for word in names.names("target_modules_bd_a")):
        return count, 1
    return 1, count if any(word in path for word in names.names("target_modules_bd_b")) else 1


def is_plain_update(config: AdapterConfig, module: ModuleSpec) -> bool:
    """Whether the update is plain `W + scale · B·A`, rounded once: the merge streams it in row blocks."""
    return (
        module.kind == "linear"
        and module.tensors.keys() == {"A", "B"}
        and not depends_on_base(config)
        and not config.fields.get("use_bdlora")
        and initialisation(config) != "mica"
    )


_ROLE_NAMES = {
    "magnitude": "magnitudes (use_dora)",
    "B_bias": "biases of lora_B (lora_bias)",
    "diag": "diagonals (kasa_config)",
}


def other_roles(config: AdapterConfig, module: ModuleSpec) -> tuple[list[str], list[str]]:
    """What a module lacks beside its factors, and what it has too much, by the config's flags: in words.

    PEFT puts initial values in the place of what is missing and drops what it does not expect. Samplers and
    projections of training may be there.
    """
    wanted = {"embedding_A", "embedding_B"} if module.kind == "embedding" else {"A", "B"}
    if config.flag("use_dora"):
        wanted.add("magnitude")
    if config.flag("lora_bias") and module.kind not in ("embedding", "parameter"):
        wanted.add("B_bias")
    if config.fields.get("kasa_config"):
        wanted.add("diag")
    found = {role for role in module.tensors if not role.startswith(("monteclora.", "velora_"))}
    return (
        [_ROLE_NAMES.get(role, role) for role in sorted(wanted - found)],
        [_ROLE_NAMES.get(role, role) for role in sorted(found - wanted)],
    )


def pattern_problems(config: AdapterConfig) -> list[str]:
    """Why the ranks or scales of some modules cannot be told from the config; each a sentence."""
    return [
        f"{key}: {reason}"
        for key in ("rank_pattern", "alpha_pattern")
        for pattern in config.pattern_values(key)
        if (reason := config.patterns.refusal(pattern, SUFFIX)) is not None
    ]


def lora_traits(config: AdapterConfig, modules: list[ModuleSpec], extras: list[ExtraWeight]) -> list[str]:
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
    if pattern_problems(config):
        found.add("pattern_refused")
    found |= {module.kind for module in modules if module.kind != "linear"}
    found |= set(extra_traits(extras))
    return sorted(found)


def unmergeable_reason(config: AdapterConfig) -> str | None:
    """Why an adapter of this config cannot be merged, with the way out; None where it can."""
    for key, reason in _NEVER_MERGED.items():
        if config.fields.get(key):
            return reason
    for word, name in _LEFT_BASES.items():
        if initialisation(config).startswith(word):
            return (
                f"{name} changed the base before training, in a way that cannot be computed again: convert"
                " the adapter once with PEFT, save_pretrained(DIR,"
                " path_initial_model_for_weight_conversion=FIRST), where FIRST is the adapter as it was"
                " before training"
            )
    return None


def depends_on_base(config: AdapterConfig) -> bool:
    return config.flag("use_dora") or subtracts_from_base(config)


def subtracts_from_base(config: AdapterConfig) -> bool:
    """Whether its start took part of the base's weights out of them, of as many ranks as it has itself."""
    return bool(config.fields.get("kasa_config")) or initialisation(config).startswith(("pissa", "olora"))


def lora_form_of_variant(config: AdapterConfig) -> LoraForm | None:
    """How a variant that is no plain LoRA can be written as one: a DoRA scales whole rows, so only nearly."""
    if config.flag("use_dora"):
        return "approximate"
    return "given_base" if subtracts_from_base(config) else None
