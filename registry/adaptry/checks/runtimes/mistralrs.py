"""What mistral.rs takes. It checks every config field, wants every tensor used, and refuses or serves."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import (
    config_conditions,
    layer_conditions,
    limits,
    names_read,
    repairs,
    shared,
)
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_CONFIG = "mistralrs-quant/src/lora/mod.rs · LoraConfig::validate_dynamic"
_SITES = "lora/dynamic/loader.rs · site_load_spec"
_ALL = "lora/dynamic/loader.rs · validate_consumption"


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    rank = ("--lora-max-rank", str(needs.rank)) if needs.rank > 256 else ()
    return ("--lora-max-adapters", str(needs.count), *rank)


MISTRALRS = RuntimeRules(
    name="mistral.rs",
    title="mistral.rs",
    source_version="9e92262 (0.9.2) and run in 0.9.5",
    tested_against=(
        "mistral.rs 0.9.5 itself, on the CPU, as the library that its package is;"
        " its HTTP server is not in it"
    ),
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
            "names in `modules_to_save`, even where the file has none of them",
            when.saved_beyond(frozenset()),
            repairs.NO_SAVED_LISTED,
            _CONFIG,
        ),
        RuntimeRule(
            "copied_embeddings", "refuses", "a copy of an embedding", when.copied, repairs.LEAVE_OUT, _ALL
        ),
        shared.token_rows("refuses", _CONFIG),
        shared.variants("refuses", _CONFIG),
        RuntimeRule(
            "field_refused",
            "refuses",
            "weight tying, MonteCLoRA",
            when.field_set("ensure_weight_tying", "monteclora_config"),
            repairs.MERGE,
            _CONFIG,
        ),
        shared.starts_from_base("refuses", _CONFIG),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are no factors",
            names_read.no_factor(names_read.one_prefix),
            repairs.SPELL,
            _ALL,
        ),
        RuntimeRule(
            "prefix",
            "needs",
            "factors without PEFT's prefix, or with any adapter's name inside, which it takes and PEFT drops",
            names_read.other_prefix(names_read.one_prefix),
            repairs.SPELL,
            _ALL,
        ),
        shared.wrapped_names("refuses", _ALL),
        RuntimeRule(
            "factors_double",
            "refuses",
            "factors of F64",
            when.in_doubles,
            repairs.AS_FLOAT32,
            "lora/dynamic/loader.rs (0.9.5, seen): the sizes it computed differ from what it loads",
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
            "modules that `exclude_modules` leaves out",
            config_conditions.excluded_targets,
            repairs.LIST_TARGETS,
            _SITES,
        ),
        RuntimeRule(
            "targets_undeclared",
            "refuses",
            "modules that `target_modules` does not name",
            config_conditions.undeclared_targets,
            repairs.LIST_TARGETS,
            _SITES,
        ),
        shared.refuses_embeddings(_SITES),
        shared.odd_layers("refuses", _SITES),
        shared.turned_experts(_SITES),
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
            "fused experts of a base that has them under another name on disk, such as Mixtral",
            layer_conditions.parameters_elsewhere,
            repairs.SPLIT_EXPERTS,
            _ALL,
        ),
        RuntimeRule(
            "experts",
            "changes",
            "fused experts (`target_parameters`), which it takes and computes otherwise than PEFT 0.21",
            when.kinds("parameter"),
            repairs.SPLIT_EXPERTS,
            "seen in 0.9.5, on a Qwen3 MoE",
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `lora_max_rank` (256 if not said)",
            limits.rank_above("lora_max_rank", 256),
            repairs.RESIZE,
            _CONFIG,
        ),
        RuntimeRule(
            "names",
            "refuses",
            "module names that the base does not have on disk",
            names_read.not_in_base(names_read.one_prefix),
            repairs.DISK_NAMES,
            _ALL,
        ),
    ),
    options=(
        RuntimeOption("lora_max_rank", "--lora-max-rank", default=256),
        RuntimeOption("lora_max_adapters", "--lora-max-adapters", default=16),
    ),
    warnings=("No adapter is loaded at run time where the model is split over GPUs (tensor parallelism).",),
    start=_start,
)
