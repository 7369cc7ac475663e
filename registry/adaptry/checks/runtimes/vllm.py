"""Rules of vLLM. Many of its checks use names only: tensors with a wrong prefix are accepted without
effect.
"""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    field_conditions,
    name_conditions,
    option_conditions,
    repairs,
    scales,
    shape_conditions,
    shared,
    vllm_classes,
    vllm_towers,
)
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.name_readers import leading_prefixes
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds
from adaptry.checks.runtimes.vllm_names import names_in_vllm, reader_for

_RANK = RuntimeOption(
    "max_lora_rank", "--max-lora-rank", default=16, allowed=(1, 8, 16, 32, 64, 128, 256, 320, 512)
)
_HELPER = "vllm/lora/peft_helper.py"
_CHECKED = f"{_HELPER} · PEFTHelper._validate_features"
_LIMIT = f"{_HELPER} · PEFTHelper.validate_legal; vllm/config/lora.py · MaxLoRARanks"
_BUFFERS = "vllm/lora/layers/base_linear.py · set_lora copies them into buffers of the server's sizes"
_PACKED = frozenset(["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"])
_COPIES = (".embed_tokens.base_layer.weight", ".lm_head.base_layer.weight")
_NAMES = "vllm/lora/utils.py · parse_fine_tuned_lora_name"
_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    targets = ("--lora-target-modules", *needs.targets) if needs.targets else ()
    return (
        "--enable-lora",
        "--max-lora-rank",
        str(_RANK.smallest_from(needs.rank)),
        "--max-loras",
        str(needs.count),
        *targets,
    )


VLLM = RuntimeRules(
    name="vllm",
    title="vLLM",
    source_version="0.33.0",
    tested_against=(
        "vLLM 0.32 itself, on the CPU: its server, with `follow` and with the plugin; rules about the config"
        " with"
        " its reader, if vLLM is installed"
    ),
    latest=(0, 33),
    preconditions=(
        shared.peft_files(f"{_HELPER} · PEFTHelper.from_local_dir"),
        shared.only_lora(f"{_HELPER} · PEFTHelper.from_dict"),
    ),
    rules=(
        RuntimeRule(
            "config_incomplete",
            "refuses",
            "no `r` or `lora_alpha` in the config, or no field `target_modules` (null is allowed)",
            field_conditions.fields_lacking(("r", "lora_alpha"), ("target_modules",)),
            repairs.SAVE_AGAIN,
            f"{_HELPER} · PEFTHelper.from_dict",
        ),
        shared.dora("refuses", _CHECKED),
        shared.trained_biases("refuses", _CHECKED),
        shared.listed_bias(_CHECKED),
        shared.variants("refuses", _CHECKED, but=("arrow",)),
        RuntimeRule(
            "arrow",
            "changes",
            "Arrow, whose router is in a field that it drops",
            when.trait("arrow", "it is an Arrow router"),
            repairs.ONE_RUNTIME,
            f"{_HELPER} · PEFTHelper.from_dict drops unknown fields",
        ),
        RuntimeRule(
            "initialisation",
            "refuses",
            f"an initialisation other than {', '.join(_INITS)}",
            field_conditions.initialised_beyond(*_INITS),
            repairs.WITHOUT_START,
            f"{_HELPER} · _init_is_supported",
        ),
        RuntimeRule(
            "initialisation_kept",
            "changes",
            "LoRA-GA, whose initialisation removed part of the base",
            field_conditions.initialised("lora_ga"),
            repairs.WITHOUT_START,
            f"{_HELPER} · _init_is_supported",
        ),
        RuntimeRule(
            "saved_modules",
            "refuses",
            "whole modules other than `classifier` or `score` (`modules_to_save`)",
            when.replaced_but(frozenset(["classifier", "score"])),
            repairs.LEAVE_OUT,
            _CHECKED,
        ),
        RuntimeRule(
            "saved_modules_listed",
            "refuses",
            "names other than `classifier` and `score` in `modules_to_save`, even if the file has none of"
            " them",
            when.saved_beyond(frozenset(["classifier", "score"])),
            repairs.NO_SAVED_LISTED,
            _CHECKED,
        ),
        *shared.copied_embeddings(_NAMES),
        shared.token_rows("refuses", _NAMES),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are not factors, or with an adapter's name inside (`lora_A.default.weight`)",
            name_conditions.no_factor(but=_COPIES, unpaired=False),
            repairs.SPELL,
            _NAMES,
        ),
        RuntimeRule(
            "factors_missing",
            "refuses",
            "one factor without the other",
            name_conditions.unpaired_factors(but=_PACKED),
            repairs.SPELL,
            "vllm/lora/layers/base_linear.py · set_lora: an assertion",
        ),
        RuntimeRule(
            "factors_missing",
            "refuses",
            "`lora_A` without `lora_B`, of a module that is packed with others, with a scale other than 1",
            name_conditions.unpaired_a_with_scale(of=_PACKED),
            repairs.SPELL,
            "vllm/lora/lora_weights.py · optimize multiplies None",
        ),
        RuntimeRule(
            "factors_missing",
            "changes",
            "one factor without the other, of a module that is packed with others (queries, keys, values,"
            " gate, up)",
            name_conditions.unpaired_factors(of=_PACKED),
            repairs.SPELL,
            "vllm/lora/layers/column_parallel_linear.py · set_lora ignores None",
        ),
        shared.prefix(f"{_NAMES} (observed in 0.32)"),
        *shared.other_method(f"{_HELPER} · PEFTHelper.from_dict has no such field"),
        RuntimeRule(
            "scale",
            "changes",
            "factors whose rank differs from the config: the scale uses the config's",
            when.other_scale(scales.of_patterns),
            repairs.FOLD,
            f"{_HELPER} · PEFTHelper.get_rank_and_scaling",
        ),
        RuntimeRule(
            "factors_differ",
            "changes",
            "factors of a module with different ranks: surplus rows are ignored",
            shape_conditions.factor_ranks_differ,
            repairs.SPELL,
            _BUFFERS,
        ),
        RuntimeRule(
            "shapes",
            "refuses",
            "factors whose sizes differ from the base's weights",
            shape_conditions.unlike_base,
            repairs.OTHER_BASE,
            _BUFFERS,
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "factors of a rank above `max_lora_rank`, regardless of the config",
            shape_conditions.rank_of_factors_above("max_lora_rank"),
            repairs.RESIZE,
            _BUFFERS,
        ),
        shared.wrapped_names("changes", f"{_NAMES} (observed in 0.32)"),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `max_lora_rank`",
            option_conditions.if_option_given(
                option_conditions.rank_above("max_lora_rank", 16), "max_lora_rank"
            ),
            repairs.RESIZE,
            _LIMIT,
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above 512",
            option_conditions.if_option_omitted(option_conditions.rank_beyond(512), "max_lora_rank"),
            repairs.RESIZE,
            _LIMIT,
        ),
        RuntimeRule(
            "rank_needs",
            "needs",
            "a rank above 16, the default, if no `max_lora_rank` is given",
            option_conditions.if_option_omitted(
                option_conditions.rank_above("max_lora_rank", 16), "max_lora_rank"
            ),
            "start the server with a larger --max-lora-rank: adaptry runtime plan REF --runtime vllm",
            _LIMIT,
        ),
        RuntimeRule(
            "targets_left_out",
            "changes",
            "modules outside `lora_target_modules`",
            option_conditions.targets_outside("lora_target_modules"),
            "start the server with all of them in --lora-target-modules, or without that option",
            "vllm/lora/model_manager.py · _match_target_modules (vllm-project/vllm #55193)",
        ),
        RuntimeRule(
            "towers",
            "changes",
            "modules outside the language model of a multimodal base, if the base's class in vLLM does not"
            " support adapters of its towers and connectors",
            vllm_towers.ignored,
            repairs.MERGE,
            "vllm/lora/model_manager.py · _get_punica_wrapper",
        ),
        RuntimeRule(
            "towers",
            "changes",
            "modules outside the language model of a multimodal base, without `enable_tower_connector_lora`",
            vllm_towers.unless_enabled(vllm_towers.outside_language_model),
            "start the server with --enable-tower-connector-lora, and check with"
            " --runtime vllm,enable_tower_connector_lora=true",
            "vllm/lora/model_manager.py · _maybe_init_mm",
        ),
        RuntimeRule(
            "names_unknown",
            "refuses",
            "modules whose last name is not that of any matrix of the base",
            vllm_classes.except_tied_head(name_conditions.last_name_unknown),
            repairs.DISK_NAMES,
            "vllm/lora/lora_model.py · check_unexpected_modules",
        ),
        RuntimeRule(
            "names",
            "changes",
            "module names that are not in the base's files",
            vllm_classes.except_tied_head(
                name_conditions.not_in_base(leading_prefixes, reads_for=reader_for, same_for=names_in_vllm)
            ),
            repairs.DISK_NAMES,
            "vllm/lora/lora_model.py · check_unexpected_modules reads only the last part"
            " (vllm-project/vllm #34186, #41754, #48019)",
        ),
        RuntimeRule(
            "head_too_large",
            "refuses",
            "an update of `lm_head` with more than 258,048 rows",
            base_conditions.vocabulary_beyond(258_048),
            repairs.MERGE,
            "vllm/lora/layers/logits_processor.py · create_lora_weights",
        ),
        RuntimeRule(
            "vocabulary",
            "refuses",
            "an update of an embedding with a different vocabulary",
            base_conditions.other_vocabulary,
            repairs.MERGE,
            "vllm/lora/lora_model.py · from_lora_tensors",
        ),
        RuntimeRule(
            "no_adapters",
            "refuses",
            "a base whose class in vLLM takes no adapters, such as GPT-2's (of 0.32)",
            vllm_classes.takes_no_adapters,
            repairs.MERGE,
            "vllm/model_executor/models/interfaces.py · SupportsLoRA",
        ),
        RuntimeRule(
            "module_split",
            "refuses",
            "`gate_up_proj` of GLM-4, which it knows only as `gate_proj` and `up_proj` (of 0.32)",
            vllm_classes.split_modules,
            repairs.MERGE,
            "vllm/lora/worker_manager.py · _load_adapter: packed_modules_mapping",
        ),
        RuntimeRule(
            "not_applied",
            "changes",
            "`c_attn` of GPTBigCode (StarCoder): it ignores its update (observed in 0.32)",
            vllm_classes.unapplied_modules,
            repairs.MERGE,
            "vllm/model_executor/models/transformers/fusers/packed_qkv.py",
        ),
        RuntimeRule(
            "embeddings",
            "refuses",
            "an update of an embedding or of `lm_head` that the base's class in vLLM does not list in"
            " embedding_modules, such as Qwen2's, Mistral's and Gemma's (of 0.32)",
            vllm_classes.unlisted_embeddings,
            repairs.MERGE,
            "vllm/lora/lora_model.py · check_unexpected_modules",
        ),
        RuntimeRule(
            "embeddings",
            "needs",
            "an update of an embedding, if the base is unknown or has an unknown class",
            vllm_classes.unknown_embeddings,
            "check whether the model's class in vLLM lists embedding_modules; if not, merge it: adaptry merge"
            " --base BASE REF -o DIR",
            "vllm/lora/lora_model.py · check_unexpected_modules",
        ),
        shared.transposed_experts("vllm/lora/model_manager.py · _validate_moe_lora_format"),
        RuntimeRule(
            "experts",
            "needs",
            "updates of parameters (`target_parameters`)",
            when.kinds("parameter"),
            "load it with is_3d_lora_weight, or start the server with --enable-mixed-moe-lora-format",
            "vllm/lora/model_manager.py · _validate_moe_lora_format",
        ),
        shared.unusual_layers("refuses", "vllm/lora/lora_model.py · check_unexpected_modules"),
        shared.transposed("needs", f"{_HELPER} · PEFTHelper has no such field"),
    ),
    options=(
        _RANK,
        RuntimeOption("max_loras", "--max-loras", default=1),
        RuntimeOption("max_cpu_loras", "--max-cpu-loras"),
        RuntimeOption("lora_target_modules", "--lora-target-modules", "names"),
        RuntimeOption(vllm_towers.TOWERS, "--enable-tower-connector-lora", "switch"),
    ),
    warnings=(
        (
            "load_inplace under the same path still answers from the prefix cache of the old weights"
            " (#42125): a new version needs a new path."
        ),
        "Unloading only forgets the name; the engine keeps the weights until they are evicted (#54839).",
        (
            "Unloading a name and loading it again during requests for it ends the engine (observed in"
            " 0.32), because"
            " it confuses two adapters with one name. Wait until no request is running, or use our plugin"
            " (docs/vllm.md)."
        ),
        (
            "An evicted adapter is loaded again from its folder, and the engine exits if the folder no longer"
            " exists (observed in 0.32): delete files only after the last request."
        ),
        "The base is not compared: the resolver compares two strings, and loading by path not even those.",
    ),
    start=_start,
    reserves_slots=True,
    reads=leading_prefixes,
    reads_for=reader_for,
    reads_method=False,
)
