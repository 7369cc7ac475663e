"""The variant of a LoRA, from its config, and whether it can be merged.

Every variant of PEFT 0.21 is a field of one `LoraConfig`. Here each gets a name, and a reason if it cannot be
merged correctly.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.extras import extra_traits
from adaptry.adapters.methods.method import LoraForm
from adaptry.adapters.pattern_process import SUFFIX
from adaptry.adapters.spec import ExtraWeight, ModuleKind, ModuleSpec
from adaptry.core.errors import InvalidConfig
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.lazy_pattern import lazy_pattern

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
_ORTHOGONAL = "orthogonal"  # before training, the product of its factors is zero, but neither factor is
TRAITS = frozenset([*_FLAG_TRAITS.values(), *_PRESENT_TRAITS.values(), *_INITS, _ORTHOGONAL])
"""The traits of a LoRA, such as `dora`, which papers and people call separate methods."""
SUBTRACTING = frozenset([*_INITS, "kasa"])
"""The traits of initialisations that removed something from the base, so that factors of zeros change it."""
_LEFT_BASES = {
    "pissa_niter": "PiSSA with a randomised decomposition",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
"""Initialisations that removed something from the base that cannot be computed from it again."""
INITIALISATIONS = lazy_pattern(
    r"(?i:gaussian|olora|mica)|eva|pissa(?:_niter_\d+)?|corda|loftq|orthogonal|lora_ga"
)
"""The texts that PEFT accepts for `init_lora_weights`."""
_NEVER_MERGED = {
    "alora_invocation_tokens": (
        "it is an aLoRA, which acts only after its invocation tokens: serve it with PEFT or an "
        "engine that knows aLoRA"
    ),
    "arrow_config": (
        "it is an Arrow router, which chooses between adapters for each token: merge one of them alone"
    ),
    "use_qalora": "QA-LoRA belongs to one quantised base: serve it on that",
}


@dataclass(frozen=True, slots=True)
class LoraVariant:
    """How a LoRA's factors act according to its config, which is read once.

    `initialisation` is the name in `init_lora_weights`; empty for true and false, which need no name.
    `block_count` is that of BD-LoRA, with the parts of names of modules whose A
    or B is block-diagonal.
    """

    initialisation: str = ""
    is_dora: bool = False
    has_bias: bool = False
    is_kasa: bool = False
    is_bdlora: bool = False
    block_count: int = 1
    blocks_of_a: tuple[str, ...] = ()
    blocks_of_b: tuple[str, ...] = ()

    @property
    def removed(self) -> str | None:
        """The initialisation that removed a part of the base's weights that can be computed again, with as
        many ranks as the adapter has.
        """
        if self.is_kasa:
            return "KaSA"
        return self.initialisation if self.initialisation in ("pissa", "olora") else None

    @property
    def subtracts_from_base(self) -> bool:
        """Whether its initialisation removed a part from the base's weights, whether or not it can be
        computed again.
        """
        return self.is_kasa or self.initialisation.startswith(("pissa", "olora"))

    @property
    def depends_on_base(self) -> bool:
        return self.is_dora or self.subtracts_from_base

    @property
    def lora_form(self) -> LoraForm | None:
        """How the variant can be written as a plain LoRA: DoRA, which scales whole rows, only
        approximately.
        """
        if self.is_dora:
            return "approximate"
        return "given_base" if self.subtracts_from_base else None

    def blocks(self, path: str) -> tuple[int, int]:
        """The numbers of diagonal blocks of A and B (BD-LoRA); 1 and 1 for a plain LoRA.

        PEFT searches for each of its target names anywhere in the module's path.
        """
        if any(word in path for word in self.blocks_of_a):
            return self.block_count, 1
        return 1, self.block_count if any(word in path for word in self.blocks_of_b) else 1

    @property
    def is_plain(self) -> bool:
        """Whether the update of a matrix is plain `W + scale · B·A`, rounded once, so that a merge can stream
        blocks of rows.
        """
        return not (self.depends_on_base or self.is_bdlora) and self.initialisation != "mica"

    def roles(self, kind: ModuleKind) -> frozenset[str]:
        """The roles that a module's tensors have in PEFT. It gives missing ones their initial values and
        drops all others, except samplers and projections used in training.
        """
        names = {"embedding_A", "embedding_B"} if kind == "embedding" else {"A", "B"}
        if self.is_dora:
            names.add("magnitude")
        if self.has_bias and kind not in ("embedding", "parameter"):
            names.add("B_bias")
        if self.is_kasa:
            names.add("diag")
        return frozenset(names)


def lora_variant(config: AdapterConfig) -> LoraVariant:
    """The variant that the config describes. Raises `InvalidConfig` for an invalid number of blocks."""
    init, settings = config.fields.get("init_lora_weights"), config.fields.get("use_bdlora")
    variant = _unblocked(
        init.lower() if isinstance(init, str) else "",
        config.flag("use_dora"),
        config.flag("lora_bias"),
        config.fields.get("kasa_config") is not None,
    )
    if settings is None:
        return variant
    blocks = AdapterConfig(settings if isinstance(settings, dict) else {})
    return replace(
        variant,
        is_bdlora=True,
        block_count=blocks.rank("nblocks", 1),
        blocks_of_a=tuple(blocks.names("target_modules_bd_a")),
        blocks_of_b=tuple(blocks.names("target_modules_bd_b")),
    )


@lru_cache(maxsize=16)  # a merge calls this for every block of rows
def _unblocked(initialisation: str, is_dora: bool, has_bias: bool, is_kasa: bool) -> LoraVariant:
    return LoraVariant(initialisation, is_dora, has_bias, is_kasa)


def scale_of(config: AdapterConfig, name: str, times: int = 1) -> tuple[float, float, int]:
    """(scale, alpha, rank by config) for a module's `name`: α/r, or α/√r with rsLoRA (arXiv 2312.03732). If
    no pattern matches the module, alpha and rank are `times` the config's.

    If a pattern was refused, the default applies, and the trait `pattern_refused` records it. Raises
    `InvalidConfig` for a value that is not a valid rank or number, and `Unavailable` if patterns could not be
    matched now.
    """
    rank, alpha = times * config.rank(), times * config.number("lora_alpha", 8)
    if config.fields.get("rank_pattern") and not _is_refused(config, "rank_pattern", name):
        rank = config.rank_for(name, rank)
    if config.fields.get("alpha_pattern") and not _is_refused(config, "alpha_pattern", name):
        alpha = config.alpha_for(name, alpha)
    return (alpha / math.sqrt(rank) if config.flag("use_rslora") else alpha / rank), alpha, rank


def _is_refused(config: AdapterConfig, key: str, name: str) -> bool:
    try:
        config.value_for(key, name, None)
    except InvalidConfig:
        return True
    return False


def pattern_problems(config: AdapterConfig) -> list[str]:
    """Sentences that explain why the config does not determine the ranks or scales of some modules."""
    return [
        f"{key}: {reason}"
        for key in ("rank_pattern", "alpha_pattern")
        for pattern in config.pattern_values(key)
        if (reason := config.patterns.refusal(pattern, SUFFIX)) is not None
    ]


def lora_traits(config: AdapterConfig, modules: list[ModuleSpec], extras: list[ExtraWeight]) -> list[str]:
    """The features that affect how this LoRA may be used, merged or served."""
    found = {trait for key, trait in _FLAG_TRAITS.items() if config.flag(key)}
    found |= {trait for key, trait in _PRESENT_TRAITS.items() if _is_set(config, key)}
    init = str(config.fields.get("init_lora_weights", "")).lower()
    found |= {name for name in _INITS if init.startswith(name)}
    found |= {init} & {_ORTHOGONAL}
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


def _is_set(config: AdapterConfig, key: str) -> bool:
    """Whether the config uses a feature. An empty mapping of settings means the default settings."""
    value = config.fields.get(key)
    has_settings = key.endswith("_config") or key == "use_bdlora"
    return value is not None if has_settings else bool(value)


def unmergeable_reason(config: AdapterConfig) -> str | None:
    """Why an adapter with this config cannot be merged, with the remedy; None if it can."""
    for key, reason in _NEVER_MERGED.items():
        if _is_set(config, key):
            return reason
    start = lora_variant(config).initialisation
    for word, name in _LEFT_BASES.items():
        if start.startswith(word):
            return (
                f"{name} changed the base before training in a way that cannot be reproduced: convert"
                " the adapter once with PEFT, save_pretrained(DIR,"
                " path_initial_model_for_weight_conversion=FIRST), where FIRST is the adapter as it was"
                " before training"
            )
    return None
