"""Rules of mistral.rs. It checks every field of the config, must use every tensor, and refuses otherwise."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import (
    config_conditions,
    field_conditions,
    layer_conditions,
    name_conditions,
    option_conditions,
    repairs,
    shared,
)
from adaptry.checks.runtimes.name_readers import one_prefix
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_CONFIG = "mistralrs-quant/src/lora/mod.rs · LoraConfig::validate_dynamic"
_SMALL = ("F8_E4M3", "F8_E5M2", "I8", "U8", "I16", "I32", "I64", "BOOL")
_LOADER = "lora/dynamic/loader.rs"
_SITES = "lora/dynamic/loader.rs · site_load_spec"
_ALL = "lora/dynamic/loader.rs · validate_consumption"


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    rank = ("--lora-max-rank", str(needs.rank)) if needs.rank > 256 else ()
    return ("--lora-max-adapters", str(needs.count), *rank)


MISTRALRS = RuntimeRules(
    name="mistral.rs",
    title="mistral.rs",
    source_version="9e92262 (0.9.2) and run in 0.9.5",
    tested_against=("mistral.rs 0.9.5 itself, on the CPU, as a library: its package lacks the HTTP server"),
    latest=(0, 9),
    preconditions=(shared.peft_files(_CONFIG), shared.only_lora(_CONFIG)),
    rules=(
        shared.needs_whole_config(_CONFIG),
        shared.dora("refuses", _CONFIG),
        shared.trained_biases("refuses", _CONFIG),
        shared.listed_bias(_CONFIG),
        shared.saved_modules("refuses", _CONFIG),
        RuntimeRule(
            "saved_modules_listed",
            "refuses",
            "names in `modules_to_save`, even if the file has none of them",
            when.saved_beyond(frozenset()),
            repairs.NO_SAVED_LISTED,
            _CONFIG,
        ),
        shared.refuses_copied_embeddings(_ALL),
        shared.token_rows("refuses", _CONFIG),
        shared.variants("refuses", _CONFIG),
        RuntimeRule(
            "field_refused",
            "refuses",
            "weight tying, MonteCLoRA, or `trainable_token_indices` even if the file has no rows",
            field_conditions.field_set("ensure_weight_tying", "monteclora_config", "trainable_token_indices"),
            repairs.MERGE,
            _CONFIG,
        ),
        shared.starts_from_base("refuses", _CONFIG),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are not factors",
            name_conditions.no_factor(),
            repairs.SPELL,
            _ALL,
        ),
        shared.prefix(_ALL),
        RuntimeRule(
            "names_apart",
            "refuses",
            "factors of a module whose names differ in more than the factor",
            name_conditions.factor_names_differ(),
            repairs.SPELL,
            f"{_LOADER} · pair_for_site",
        ),
        *shared.factor_shapes(f"{_LOADER} · tensor_elements_after_sharding"),
        shared.wrapped_names("refuses", _ALL),
        RuntimeRule(
            "factors_dtype",
            "refuses",
            "factors of float8 or integers",
            when.dtypes_beyond("F64", "F32", "F16", "BF16"),
            repairs.SAVE_AGAIN,
            "lora/dynamic/execution.rs · LoraWeights::new (observed in 0.9.5)",
        ),
        RuntimeRule(
            "factors_double",
            "refuses",
            "factors of F64",
            when.dtypes_beyond("F32", "F16", "BF16", *_SMALL),
            repairs.AS_FLOAT32,
            "lora/dynamic/loader.rs (observed in 0.9.5): the computed sizes differ from the loaded ones",
        ),
        RuntimeRule(
            "targets_empty",
            "refuses",
            "an empty `target_modules`",
            config_conditions.declares_nothing,
            repairs.LIST_TARGETS,
            "mistralrs-quant/src/lora/mod.rs · LoraTargetModules::validate",
        ),
        RuntimeRule(
            "targets_excluded",
            "refuses",
            "modules that `exclude_modules` excludes",
            config_conditions.excluded_targets,
            repairs.LIST_TARGETS,
            _SITES,
        ),
        RuntimeRule(
            "targets_undeclared",
            "refuses",
            "modules that `target_modules` does not list",
            config_conditions.undeclared_targets,
            repairs.LIST_TARGETS,
            _SITES,
        ),
        shared.refuses_embeddings(_SITES),
        shared.unusual_layers("refuses", _SITES),
        shared.transposed_experts(_SITES),
        RuntimeRule(
            "experts_named",
            "refuses",
            "`target_parameters` other than `….experts.gate_up_proj` and `….experts.down_proj`, as"
            " `all-linear` gives them",
            config_conditions.parameters_beyond(".experts.gate_up_proj", ".experts.down_proj"),
            repairs.SPLIT_EXPERTS,
            _CONFIG,
        ),
        RuntimeRule(
            "experts_elsewhere",
            "refuses",
            "fused experts of a base that stores them under another name, such as Mixtral",
            layer_conditions.parameters_elsewhere,
            repairs.SPLIT_EXPERTS,
            _ALL,
        ),
        RuntimeRule(
            "experts",
            "changes",
            "fused experts (`target_parameters`), which it loads but computes differently from PEFT 0.21",
            when.kinds("parameter"),
            repairs.SPLIT_EXPERTS,
            "observed in 0.9.5, with a Qwen3 MoE",
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `lora_max_rank` (default 256)",
            option_conditions.rank_above("lora_max_rank", 256),
            repairs.RESIZE,
            _CONFIG,
        ),
        RuntimeRule(
            "names",
            "refuses",
            "module names that are not in the base's files",
            name_conditions.not_in_base(one_prefix),
            repairs.DISK_NAMES,
            _ALL,
        ),
    ),
    options=(
        RuntimeOption("lora_max_rank", "--lora-max-rank", default=256),
        RuntimeOption("lora_max_adapters", "--lora-max-adapters", default=16),
    ),
    warnings=("With tensor parallelism, no adapter can be loaded at run time.",),
    start=_start,
    reads=one_prefix,
)
