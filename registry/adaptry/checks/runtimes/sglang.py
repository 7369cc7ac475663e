"""Rules of SGLang. It reads four fields of the config, finds modules by layer and last name, and fails on
other names at the first request.
"""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    config_conditions,
    field_conditions,
    layer_conditions,
    name_conditions,
    option_conditions,
    packed_modules,
    repairs,
    scales,
    shared,
)
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.name_readers import by_layer
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_FIELDS = "srt/lora/lora_config.py · LoRAConfig.__init__ reads only target_modules, r, lora_alpha, use_dora"
_NEW = "srt/lora/lora_manager.py · validate_new_adapter"
_POOL = "srt/lora/mem_pool.py · can_support"
_FIRST = "srt/lora/mem_pool.py · load_lora_weight_to_buffer, at the first request with it"
_STACKED = "srt/lora/lora.py · normalize_qkv_proj, normalize_gate_up_proj"
_COPIES = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_MODULES = frozenset(
    [
        *(
            "q_proj",
            "k_proj",
            "v_proj",
            "o_proj",
            "q_a_proj",
            "kv_a_proj_with_mqa",
            "q_b_proj",
            "kv_b_proj",
            "wq_b",
        ),
        *(
            "wk",
            "weights_proj",
            "gate_proj",
            "up_proj",
            "down_proj",
            "qkv_proj",
            "gate_up_proj",
            "embed_tokens",
        ),
        *("lm_head", "qkvr", "wo_ud", "word_embeddings", "output", "unembed_tokens"),
    ]
)
_PACKED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return (
        "--enable-lora",
        "--max-lora-rank",
        str(needs.rank),
        "--max-loras-per-batch",
        str(needs.count + 1),  # the base counts too
        "--lora-target-modules",
        *needs.targets,
        "--lora-strict-loading",
    )


SGLANG = RuntimeRules(
    name="sglang",
    title="SGLang",
    source_version="0.5.23",
    tested_against=(
        "its reader, LoRA manager, memory pool and arithmetic (0.5.23), with its Llama model on the CPU. Its"
        " server is not run: the kernels that it needs are not packaged for CPUs"
    ),
    latest=(0, 5),
    preconditions=(
        shared.peft_files(_FIELDS),
        shared.only_lora("srt/lora/lora.py · LoRAAdapter.__init__ asserts it"),
    ),
    rules=(
        shared.needs_whole_config(_FIELDS),
        shared.dora("refuses", _NEW),
        shared.scale(
            scales.of_config,
            "rsLoRA, or `alpha_pattern`, or `rank_pattern`: the scale is `lora_alpha / r` for all",
            "srt/lora/lora.py · LoRAAdapter.__init__ (sgl-project/sglang #40835)",
        ),
        RuntimeRule(
            "rank_pattern",
            "refuses",
            "a module whose rank is not `r`",
            config_conditions.other_ranks,
            repairs.ONE_RANK,
            _FIRST,
        ),
        RuntimeRule(
            "parts_missing",
            "refuses",
            "queries, keys or values without the others in the layer, or `up_proj` without `gate_proj`",
            packed_modules.packed_module_missing,
            repairs.FILL_PARTS,
            f"{_STACKED}; {_FIRST}",
        ),
        RuntimeRule(
            "saved_modules",
            "changes",
            "a whole head or embedding (`modules_to_save`)",
            layer_conditions.replaced_beside_layers,
            repairs.LEAVE_OUT,
            "srt/lora/lora.py · _process_weight drops them with a debug line",
        ),
        RuntimeRule(
            "saved_modules_in_layers",
            "refuses",
            "whole modules of a layer (`modules_to_save`)",
            layer_conditions.replaced_in_layers,
            repairs.LEAVE_OUT,
            _FIRST,
        ),
        *shared.copied_embeddings("srt/lora/lora.py · _process_weight"),
        shared.token_rows("changes", "srt/lora/lora.py · _process_weight"),
        shared.trained_biases("changes", _FIELDS, by_file=True),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors of a layer that are not factors",
            name_conditions.no_factor(in_layers=True, filled={"up_proj": "gate_proj"}),
            repairs.SPELL,
            _FIRST,
        ),
        RuntimeRule(
            "factors_missing",
            "changes",
            "one factor of `up_proj` without the other, beside `gate_proj`: its update is zero",
            name_conditions.unpaired_factors(of=frozenset(["up_proj"])),
            repairs.SPELL,
            _STACKED,
        ),
        RuntimeRule(
            "tensors_dropped",
            "changes",
            "tensors outside the layers that are not factors",
            name_conditions.no_factor(but=_COPIES, in_layers=False),
            repairs.SPELL,
            "srt/lora/lora.py · _process_weight",
        ),
        shared.prefix("srt/lora/lora.py · _process_weight"),
        RuntimeRule(
            "names_apart",
            "refuses",
            "queries, keys and values of a layer, or gate and up, whose names differ in more than the module",
            name_conditions.packed_names_differ(*_PACKED),
            repairs.SPELL,
            f"{_STACKED}: a KeyError",
        ),
        RuntimeRule(
            "factors_dtype",
            "refuses",
            "queries, keys and values of a layer, or gate and up, only some of which are float8",
            packed_modules.float8_beside_others(*_PACKED),
            repairs.SAVE_AGAIN,
            f"{_STACKED}: a RuntimeError of torch.cat",
        ),
        *shared.factor_shapes(f"{_STACKED}; {_FIRST}", rank=False),
        RuntimeRule(
            "embeddings_unlisted",
            "changes",
            "an update of an embedding or head that is not in the list `target_modules`",
            config_conditions.embeddings_unlisted,
            repairs.LIST_TARGETS,
            "srt/lora/lora.py · _process_weight drops it with a debug line",
        ),
        shared.variants("changes", _FIELDS),
        shared.starts_from_base("changes", _FIELDS),
        shared.transposed_experts(_FIELDS),
        RuntimeRule(
            "added_tokens",
            "refuses",
            "tokens in `added_tokens.json` that its base lacks",
            base_conditions.base_known(base_conditions.added_tokens),
            repairs.MERGE,
            f"{_NEW}: lora_added_tokens_size > 0",
        ),
        RuntimeRule(
            "added_tokens_needs",
            "needs",
            "tokens in `added_tokens.json`, and an unknown base",
            base_conditions.base_unknown(base_conditions.added_tokens),
            "register the base once: adaptry base add FOLDER --name NAME",
            f"{_NEW}: lora_added_tokens_size > 0",
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `max_lora_rank`",
            option_conditions.if_option_given(
                option_conditions.rank_above("max_lora_rank", 8), "max_lora_rank"
            ),
            repairs.RESIZE,
            _POOL,
        ),
        RuntimeRule(
            "targets_text",
            "refuses",
            "`target_modules` as a pattern",
            field_conditions.target_text("all", "all-linear"),
            repairs.LIST_TARGETS,
            "srt/lora/utils.py · get_normalized_target_modules",
        ),
        RuntimeRule(
            "targets_unknown",
            "refuses",
            "modules beyond its fixed list",
            when.targets_beyond(_MODULES),
            repairs.MERGE,
            "srt/utils/common.py · SUPPORTED_LORA_TARGET_MODULES",
        ),
        RuntimeRule(
            "targets_listed",
            "refuses",
            "names in `target_modules` beyond its fixed list, even if the file has none of them",
            config_conditions.listed_beyond(_MODULES),
            repairs.LIST_TARGETS,
            _POOL,
        ),
        RuntimeRule(
            "targets_left_out",
            "refuses",
            "modules outside `lora_target_modules`",
            option_conditions.targets_outside("lora_target_modules"),
            "start the server with all of them in --lora-target-modules",
            _POOL,
        ),
        RuntimeRule(
            "names",
            "refuses",
            "modules that the base does not have in that layer, by their last name",
            layer_conditions.not_in_its_layers,
            repairs.MERGE,
            _FIRST,
        ),
        shared.transposed("needs", _FIELDS),
    ),
    options=(
        RuntimeOption("max_lora_rank", "--max-lora-rank"),
        RuntimeOption("max_loras_per_batch", "--max-loras-per-batch", default=8),
        RuntimeOption("lora_target_modules", "--lora-target-modules", "names"),
        RuntimeOption("lora_strict_loading", "--lora-strict-loading", "switch"),
    ),
    warnings=(
        ("Unloading does not revoke: the next request that names the adapter loads it again from its path."),
        (
            "A problem that it detects only at the first request ends the whole server"
            " (srt/managers/scheduler.py ·"
            " run_scheduler_process; read, not run)."
        ),
        "The base is not compared.",
    ),
    start=_start,
    reserves_slots=True,
    reads=by_layer,
)
