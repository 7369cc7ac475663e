"""Values in a config for which PEFT raises an error on any base.

Most are conditions of the config classes' `__post_init__` (PEFT 0.21.2), which runs before PEFT loads the
files. Fields that are absent have PEFT's default. A test compares the conditions with the installed PEFT.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.lora_config import INITIALISATIONS, lora_variant
from adaptry.adapters.peft_fields import declared_types, expected_type, is_unread
from adaptry.checks.codes import build_finding
from adaptry.core.lazy_pattern import lazy_pattern
from adaptry.core.report import Finding

_PATTERNS = frozenset(
    ["alpha_pattern", "block_size_pattern", "lambda_pattern", "n_frequency_pattern", "rank_pattern"]
)
"""Mappings of module names to numbers. AdaLoRA's `rank_pattern` has lists."""
_MAPPINGS = (
    *("arrow_config", "eva_config", "kasa_config", "monteclora_config", "use_bdlora", "velora_config"),
)
"""Mappings that PEFT makes objects of, whose values it checks."""
_FLOAT32_MAX = 3.4028234663852886e38
"""Of float32."""
_OWN_DROPOUT = frozenset(["rank_dropout", "module_dropout", "boft_dropout"])
"""Probabilities that PEFT only compares with a random number."""
_TEXT_WITHOUT_LAYERS = frozenset(
    [
        *("LORA", "ADALORA", "C3A", "DEFT", "DELORA", "FOURIERFT", "HIRA", "HRA", "MISS", "PSOFT", "SHADOW"),
        *("UNILORA", "WAVEFT"),
    ]
)
"""Methods that refuse `layers_to_transform` if `target_modules` is a string."""
_TEXT_WITHOUT_PATTERN = _TEXT_WITHOUT_LAYERS - {"DELORA"}
"""Methods that refuse `layers_pattern`, also an empty list, if `target_modules` is a string."""
_PATTERN_WITH_LAYERS = frozenset(
    [
        *("LORA", "ADALORA", "BOFT", "DEFT", "DELORA", "FOURIERFT", "FROD", "HRA", "LILY", "LOHA", "LOKR"),
        *("OFT", "PEANUT", "PSOFT", "PVERA", "SHADOW", "TINYLORA", "VBLORA", "VERA", "WAVEFT"),
    ]
)
"""Methods that refuse `layers_pattern` without `layers_to_transform`."""

Bound = Literal["above", "at least", "at most", "below"]
_RANGES: tuple[tuple[str, str, float, tuple[tuple[Bound, float], ...]], ...] = (
    ("ADALORA", "orth_reg_weight", 0.5, (("at least", 0),)),
    ("ADAMSS", "num_subspaces", 5, (("above", 0),)),
    ("ADAMSS", "subspace_rank", 1, (("at least", 0),)),
    ("CARTRIDGE", "num_frozen_tokens", 1, (("at least", 0),)),
    ("CARTRIDGE", "num_transformer_submodules", 1, (("at least", 0),)),
    ("FROD", "sparse_rate", 0.01, (("at least", 0), ("at most", 1))),
    ("GRALORA", "gralora_k", 2, (("above", 0),)),
    ("LILY", "stride_A", 1, (("at least", 1),)),
    ("LILY", "num_B", 2, (("at least", 2),)),
    ("OFT", "num_cayley_neumann_terms", 5, (("at least", 2),)),
    ("OFT", "oft_block_size", 32, (("at least", 0),)),
    ("OFT", "r", 0, (("at least", 0),)),
    ("OSF", "effective_rank", 1, (("above", 0),)),
    ("PEANUT", "depth", 0, (("at least", 0),)),
    ("PREFIX_TUNING", "num_transformer_submodules", 1, (("at least", 0),)),
    ("ROAD", "group_size", 64, (("above", 0),)),
    ("SUPERTUNING", "sparsity", 0.99, (("at least", 0), ("below", 1))),
    ("SUPERTUNING", "lora_dropout", 0, (("at least", 0), ("below", 1))),
    ("TINYLORA", "u", 64, (("above", 0),)),
    ("TINYLORA", "weight_tying", 0, (("at least", 0), ("at most", 1))),
    ("UNILORA", "proj_seed", 42, (("at least", 0),)),
    ("UNILORA", "theta_d_length", 256, (("above", 0),)),
    ("UNILORA", "unilora_dropout", 0, (("at least", 0),)),
    ("UNILORA", "init_theta_d_bound", 0.02, (("above", 0),)),
    ("VBLORA", "init_logits_std", 0.1, (("at least", 0),)),
    ("VBLORA", "init_vector_bank_bound", 0.02, (("at least", 0),)),
    ("VBLORA", "topk", 2, (("above", 0),)),
)
"""Method, numeric field, PEFT's default, and the bounds of the values that PEFT accepts."""
_ACTIVATIONS: frozenset[object] = frozenset(
    [
        *("gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh"),
        *("gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu"),
        *("relu", "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu"),
    ]
)
"""The names in `ACT2FN` of transformers 5.24."""
_CHOICES: tuple[tuple[str, str, frozenset[object]], ...] = (
    ("ADAMSS", "init_weights", frozenset(["orthogonal", None, False])),
    ("C3A", "init_weights", frozenset([True, False, "gaussian", "kaiming_uniform", "xavier_uniform"])),
    ("HIRA", "init_weights", frozenset([True, False, None, "gaussian"])),
    ("GLORA", "config_A_B", frozenset(["lora", "vector", "constant", "none"])),
    ("GLORA", "config_C", frozenset(["lora", "vector", "none"])),
    ("GLORA", "config_D_E", frozenset(["vector", "constant", "none"])),
    ("PEANUT", "act_fn", _ACTIVATIONS),
    ("PSOFT", "ab_svd_init", frozenset(["psoft_init", "pissa_init"])),
    ("PSOFT", "psoft_svd", frozenset(["full", "lowrank"])),
    ("ROAD", "variant", frozenset(["road_1", "road_2", "road_4"])),
    ("UNILORA", "bias", frozenset(["none", "all", "unilora_only"])),
)
"""Method, field, and the values that PEFT accepts."""
_ONE_OF_TWO = (("BOFT", "boft_block_size", 4, "boft_block_num", 0), ("OFT", "r", 0, "oft_block_size", 32))
"""Method and two sizes, with PEFT's defaults, of which exactly one must be set: the other follows from it."""

_BIASES = lazy_pattern(r"none|all|.*_only")
_WAVELETS = lazy_pattern(r"db(?:[1-9]|[12]\d|3[0-8])|sym(?:[2-9]|1\d|20)|coif(?:[1-9]|1[0-7])")
"""The families in PEFT's `WAVELET_REDUCTIONS`."""


def refused_fields(config: AdapterConfig) -> Iterator[Finding]:
    """A finding for each value that PEFT refuses."""
    if config.peft_type == "BONE":
        yield build_finding(
            "method_retired", "since 0.19, PEFT has replaced Bone by MiSS and refuses peft_type BONE"
        )
    targets = config.fields.get("target_modules")
    if _is_layered_text(config):
        yield build_finding(
            "layers_need_a_list",
            f"target_modules is the string {str(targets)[:60]!a}, and layers_to_transform is set",
        )
    for reason in _reasons(config):
        yield build_finding("config_refused", reason)


def _reasons(config: AdapterConfig) -> Iterator[str]:
    fields, kind = config.fields, config.peft_type
    if fields.get("peft_type") != kind:
        yield f"peft_type is {str(fields.get('peft_type'))[:40]!a}; PEFT requires {kind!a}"
    for key, value in fields.items():
        if is_unread(fields, key):
            continue
        if (expected := expected_type(kind, key, value)) is not None:
            yield f"{key} is {'null' if value is None else repr(value)[:40]}, but must be {expected}"
        elif type(value) in (int, float) and abs(value) > _FLOAT32_MAX:
            yield f"{key} is {str(value)[:40]}, which is too large for float32"
        is_own = key in _OWN_DROPOUT and kind != "DELORA"
        if key.endswith("_dropout") and not is_own and type(value) in (int, float) and value > 1:
            yield f"{key} is {value}, but must be at most 1"
    for key in sorted(_PATTERNS & fields.keys() & declared_types(kind).keys()) if kind != "ADALORA" else ():
        value = fields[key]
        if value is None and (kind, key) != ("OSF", "rank_pattern"):
            yield f"{key} is null"
        wrong = (
            [each for each in value.values() if type(each) not in (int, float)]
            if isinstance(value, dict)
            else []
        )
        if wrong:
            yield f"{key} contains {str(wrong[0])[:40]!a}; its values must be numbers"
    if fields.get("r") == 0 and kind != "OFT":  # an OFT may set a block size instead
        yield "r is 0"
    bias = fields.get("bias", "none")
    if "bias" in declared_types(kind) and isinstance(bias, str) and not _BIASES.fullmatch(bias):
        yield f"bias {bias[:40]!a} is unknown to PEFT, which expects 'none', 'all' or '…_only'"
    if isinstance(fields.get("modules_to_save"), str) and config.saved_modules:
        yield "modules_to_save is a string, whose characters PEFT would take for modules; it must be a list"
    yield from _layers(config)
    yield from _ranges(config)
    yield from _own_conditions(config)


def _is_layered_text(config: AdapterConfig) -> bool:
    is_text = isinstance(config.fields.get("target_modules"), str)
    has_layers = config.fields.get("layers_to_transform") is not None
    return is_text and has_layers and config.peft_type in _TEXT_WITHOUT_LAYERS


def _layers(config: AdapterConfig) -> Iterator[str]:
    pattern = config.fields.get("layers_pattern")
    is_text = isinstance(config.fields.get("target_modules"), str)
    if is_text and pattern is not None and config.peft_type in _TEXT_WITHOUT_PATTERN:
        yield "target_modules is a string, and layers_pattern is set"
    has_layers = config.fields.get("layers_to_transform") is not None
    if pattern and not has_layers and config.peft_type in _PATTERN_WITH_LAYERS:
        yield "layers_pattern is set without layers_to_transform"


def _ranges(config: AdapterConfig) -> Iterator[str]:
    fields, kind = config.fields, config.peft_type
    for method, key, default, bounds in _RANGES:
        value = _number(fields, key, default)
        if method != kind or value is None:
            continue
        for bound, limit in bounds:
            if not keeps_bound(value, bound, limit):
                yield f"{key} is {value:g}, but must be {bound} {limit:g}"
    for method, key, choices in _CHOICES:
        if method == kind and key in fields and not _is_one_of(fields[key], choices):
            yield f"PEFT does not know {key} {str(fields[key])[:40]!a}"
    for method, first, its_default, second, other_default in _ONE_OF_TWO:
        sizes = (_number(fields, first, its_default), _number(fields, second, other_default))
        if method == kind and None not in sizes and (sizes[0] == 0) is (sizes[1] == 0):
            yield f"{first} is {sizes[0]:g} and {second} is {sizes[1]:g}, but exactly one of them must be 0"


def _own_conditions(config: AdapterConfig) -> Iterator[str]:
    """The conditions of single methods, on several fields."""
    fields = config.fields
    match config.peft_type:
        case "LORA":
            yield from _of_lora(config)
        case "ADALORA":
            yield from _of_adalora(config)
        case "ADAMSS" if config.flag("use_asa"):
            first, last = _number(fields, "init_warmup", 50), _number(fields, "final_warmup", 1000)
            if first is not None and last is not None and first >= last:
                yield f"init_warmup is {first:g}, but must be below final_warmup {last:g}"
            for key in ("mask_interval", "asa_target_subspaces", "asa_schedule_exponent"):
                if (value := _number(fields, key, 1)) is not None and value <= 0:
                    yield f"{key} is {value:g}, but must be above 0"
        case "CARTRIDGE":
            frozen, tokens = _number(fields, "num_frozen_tokens", 1), fields.get("num_virtual_tokens")
            if frozen is not None and isinstance(tokens, int) and frozen > tokens:
                yield f"num_frozen_tokens is {frozen:g}, but num_virtual_tokens {tokens}"
        case "CPT" if fields.get("task_type") != "CAUSAL_LM":
            yield f"task_type is {str(fields.get('task_type'))[:40]!a}, but CPT needs CAUSAL_LM"
        case "FOURIERFT" if fields.get("random_loc_seed", 777) is None:
            yield "random_loc_seed is null"
        case "GRALORA":
            rank, blocks = _number(fields, "r", 32), _number(fields, "gralora_k", 2)
            if rank is not None and blocks and rank % blocks:
                yield f"r is {rank:g}, which gralora_k {blocks:g} does not divide"
        case "IA3":
            yield from _of_ia3(fields)
        case "PROMPT_TUNING" | "MULTITASK_PROMPT_TUNING":
            yield from _of_prompt_tuning(fields)
        case "PSOFT" if fields.get("psoft_alpha") == 0:
            yield "psoft_alpha is 0, by which PEFT divides"
        case "PSOFT" if config.flag("use_cayley_neumann"):
            terms, limit = _number(fields, "num_cayley_neumann_terms", 5), fields.get("cayley_neumann_eps")
            if terms is not None and terms <= 0:
                yield f"num_cayley_neumann_terms is {terms:g}, but must be above 0"
            if isinstance(limit, float | int) and not 0 < limit < 1:
                yield f"cayley_neumann_eps is {limit:g}, but must be above 0 and below 1"
        case "ROAD":
            if (size := _number(fields, "group_size", 64)) is not None and size % 2:
                yield f"group_size is {size:g}, but must be even"
        case "SUPERTUNING" if fields.get("r") is None and fields.get("lora_alpha") is not None:
            yield "lora_alpha is set without r"
        case "WAVEFT":
            family = str(fields.get("wavelet_family", "db1"))
            if not _WAVELETS.fullmatch(family):
                yield f"PEFT does not know wavelet_family {family[:40]!a}"


def _of_lora(config: AdapterConfig) -> Iterator[str]:
    fields, start = config.fields, lora_variant(config).initialisation
    if start and not INITIALISATIONS.fullmatch(str(fields.get("init_lora_weights"))):
        yield f"PEFT does not know init_lora_weights {start[:40]!a}"
    if start == "loftq" and not fields.get("loftq_config"):
        yield "init_lora_weights is 'loftq' without loftq_config"
    if isinstance(fields.get("target_parameters"), str):
        yield "target_parameters is a string, but must be a list"
    if any(isinstance(value, dict) for value in map(fields.get, _MAPPINGS)):
        from adaptry.checks.refused_mappings import refused_mapping_values  # few adapters need it

        yield from refused_mapping_values(fields)
    if config.flag("lora_bias") and start:
        yield f"lora_bias is set with init_lora_weights {start[:40]!a}"
    if config.flag("lora_bias") and config.flag("use_dora"):
        yield "lora_bias and use_dora are both set"
    if start.startswith("pissa") and (alpha := _number(fields, "lora_alpha", 8)) is not None and alpha <= 0:
        yield f"lora_alpha is {alpha:g}, but PiSSA takes square roots of values divided by it: NaN"


def _of_adalora(config: AdapterConfig) -> Iterator[str]:
    """The conditions of AdaLoRA, whose config class is LoRA's with further fields."""
    yield from _of_lora(config)
    fields = config.fields
    if fields.get("use_dora"):
        yield "use_dora is set, which AdaLoRA does not support"
    if fields.get("init_lora_weights") == "loftq":
        yield "init_lora_weights is 'loftq', which AdaLoRA does not support"
    kept = fields.get("rank_pattern")
    if isinstance(kept, dict) and not all(isinstance(each, list) for each in kept.values()):
        yield "rank_pattern has values that are not lists"
    total = _number(fields, "total_step", 0) or 0
    if total <= 0:
        yield "total_step is not set, but must be above 0"
        return
    first, last = _number(fields, "tinit", 0) or 0, _number(fields, "tfinal", 0) or 0
    if first >= total - last:
        yield f"tinit {first:g} and tfinal {last:g} leave no step of total_step {total:g}"


def _of_ia3(fields: Mapping[str, Any]) -> Iterator[str]:
    """The conditions of IA3. (`Any`, here and below: JSON.)"""
    inner, targets = fields.get("feedforward_modules"), fields.get("target_modules")
    if isinstance(inner, list) and isinstance(targets, list):
        others = [name for name in inner if name not in targets]
        if others:
            yield f"feedforward_modules lists {str(others[0])[:40]!a}, which target_modules lacks"


def _of_prompt_tuning(fields: Mapping[str, Any]) -> Iterator[str]:
    start = fields.get("prompt_tuning_init")
    if start == "TEXT" and not fields.get("tokenizer_name_or_path"):
        yield "prompt_tuning_init is 'TEXT' without tokenizer_name_or_path"
    if start == "TEXT" and fields.get("prompt_tuning_init_text") is None:
        yield "prompt_tuning_init is 'TEXT' without prompt_tuning_init_text"
    if start != "TEXT" and fields.get("tokenizer_kwargs"):
        yield "tokenizer_kwargs is set, but prompt_tuning_init is not 'TEXT'"


def _number(fields: Mapping[str, Any], key: str, default: float) -> float | None:
    """The number, or PEFT's default if the field is absent; None for anything else, which is reported
    elsewhere.
    """
    value = fields.get(key, default)
    return value if type(value) in (int, float) else None


def _is_one_of(value: object, choices: frozenset[object]) -> bool:
    return isinstance(value, str | bool | None) and value in choices


def keeps_bound(value: float, bound: Bound, limit: float) -> bool:
    match bound:
        case "above":
            return value > limit
        case "at least":
            return value >= limit
        case "at most":
            return value <= limit
        case "below":
            return value < limit
