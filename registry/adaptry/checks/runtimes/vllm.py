"""What vLLM takes. It checks much by name: what passes under a wrong prefix silently changes nothing."""

from __future__ import annotations

from adaptry.checks.runtimes import base_conditions, limits, names_read, repairs, shared
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_RANK = RuntimeOption(
    "max_lora_rank", "--max-lora-rank", default=16, allowed=(1, 8, 16, 32, 64, 128, 256, 320, 512)
)
_HELPER = "vllm/lora/peft_helper.py"
_CHECKED = f"{_HELPER} · PEFTHelper._validate_features"
_LIMIT = f"{_HELPER} · PEFTHelper.validate_legal; vllm/config/lora.py · MaxLoRARanks"
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
        "vLLM 0.32 itself, on the CPU: served, followed, and its plugin; the config rules by its own reader"
        " where vLLM is installed"
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
            "no `r` or `lora_alpha` in the config, or no field `target_modules` (null will do)",
            when.fields_lacking(("r", "lora_alpha"), ("target_modules",)),
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
            "Arrow, whose router is a field it drops",
            when.trait("arrow", "it is an Arrow router"),
            repairs.ONE_RUNTIME,
            f"{_HELPER} · PEFTHelper.from_dict drops unknown fields",
        ),
        RuntimeRule(
            "initialisation",
            "refuses",
            f"an initialisation other than {', '.join(_INITS)}",
            when.initialised_beyond(*_INITS),
            repairs.WITHOUT_START,
            f"{_HELPER} · _init_is_supported",
        ),
        RuntimeRule(
            "initialisation_kept",
            "changes",
            "LoRA-GA, whose start was taken out of the base",
            when.initialised("lora_ga"),
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
            "other names than `classifier` and `score` in `modules_to_save`,"
            " even where the file has none of them",
            when.saved_beyond(frozenset(["classifier", "score"])),
            repairs.NO_SAVED_LISTED,
            _CHECKED,
        ),
        shared.copied_embeddings(_NAMES),
        shared.token_rows("refuses", _NAMES),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are no factors, or have an adapter's name inside (`lora_A.default.weight`)",
            names_read.no_factor(names_read.any_prefixes),
            repairs.SPELL,
            _NAMES,
        ),
        RuntimeRule(
            "prefix",
            "needs",
            "factors without PEFT's prefix or with it twice, which it takes and PEFT drops",
            names_read.other_prefix(names_read.any_prefixes),
            repairs.SPELL,
            f"{_NAMES} (0.32, seen)",
        ),
        shared.wrapped_names("changes", f"{_NAMES} (0.32, seen)"),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `max_lora_rank`",
            limits.if_option_given(limits.rank_above("max_lora_rank", 16), "max_lora_rank"),
            repairs.RESIZE,
            _LIMIT,
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above 512",
            limits.if_option_omitted(limits.rank_beyond(512), "max_lora_rank"),
            repairs.RESIZE,
            _LIMIT,
        ),
        RuntimeRule(
            "rank_needs",
            "needs",
            "a rank above 16, the default, where no `max_lora_rank` is said",
            limits.if_option_omitted(limits.rank_above("max_lora_rank", 16), "max_lora_rank"),
            "start the server with a larger --max-lora-rank: adaptry runtime plan REF --runtime vllm",
            _LIMIT,
        ),
        RuntimeRule(
            "targets_left_out",
            "changes",
            "modules outside `lora_target_modules`",
            limits.targets_outside("lora_target_modules"),
            "start the server with --lora-target-modules that name them all, or with none",
            "vllm/lora/model_manager.py · _match_target_modules (vllm-project/vllm #55193)",
        ),
        RuntimeRule(
            "names",
            "changes",
            "module names that the base does not have on disk",
            names_read.not_in_base(names_read.any_prefixes),
            repairs.DISK_NAMES,
            "vllm/lora/lora_model.py · check_unexpected_modules looks at the last part only"
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
            "an update of an embedding of another vocabulary",
            base_conditions.other_vocabulary,
            repairs.MERGE,
            "vllm/lora/lora_model.py · from_lora_tensors",
        ),
        RuntimeRule(
            "embeddings",
            "needs",
            "an update of an embedding",
            when.kinds("embedding"),
            "look whether the model's class in vLLM lists embedding_modules; if not, merge it: adaptry merge"
            " --base BASE REF -o DIR",
            "vllm/lora/lora_model.py · check_unexpected_modules",
        ),
        shared.turned_experts("vllm/lora/model_manager.py · _validate_moe_lora_format"),
        RuntimeRule(
            "experts",
            "needs",
            "updates of parameters (`target_parameters`)",
            when.kinds("parameter"),
            "load it with is_3d_lora_weight, or start the server with --enable-mixed-moe-lora-format",
            "vllm/lora/model_manager.py · _validate_moe_lora_format",
        ),
        shared.odd_layers("refuses", "vllm/lora/lora_model.py · check_unexpected_modules"),
        shared.transposed("needs", f"{_HELPER} · PEFTHelper has no such field"),
    ),
    options=(
        _RANK,
        RuntimeOption("max_loras", "--max-loras", default=1),
        RuntimeOption("max_cpu_loras", "--max-cpu-loras"),
        RuntimeOption("lora_target_modules", "--lora-target-modules", "names"),
    ),
    warnings=(
        (
            "load_inplace under the same path goes on answering from the prefix cache of the old weights"
            " (#42125): a new version needs a new path."
        ),
        "Unloading only forgets the name; the engine keeps the weights until they are pushed out (#54839).",
        (
            "Unloading a name and loading it again while requests for it are under way ends the engine (0.32,"
            " seen): two that are loaded under one name are mixed up. Wait until none is under way, or let"
            " our plugin do it (docs/vllm.md)."
        ),
        (
            "An adapter that was pushed out is loaded again from its folder, and the engine ends if that is"
            " gone (0.32, seen): files may go only after the last request."
        ),
        "Nothing compares the base: the resolver compares two strings, loading by path not even those.",
    ),
    start=_start,
    reserves_slots=True,
)
