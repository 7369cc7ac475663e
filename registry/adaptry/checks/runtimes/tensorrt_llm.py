"""Rules of TensorRT-LLM, from its `lora_manager.py`. NIM's images since 2.0 use vLLM."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import option_conditions, repairs, scales, shared
from adaptry.checks.runtimes.rule import RuntimeOption, RuntimeRule, RuntimeRules, ServerNeeds

_KEYS = "lora_manager.py · iterate_hf_lora (HF_LORA_PATTERN)"
_MAP = "lora_manager.py · get_default_trtllm_modules_to_hf_modules"
_LOAD = "lora_manager.py · load_from_hf"
_BUILD = "lora_manager.py · load_hf_lora"
_MODULES = frozenset(
    [
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj", "gate_up_proj"),
        *("w1", "w2", "w3", "gate", "lm_head", "embed_tokens"),
    ]
)


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return (f"LoraConfig(max_lora_rank={needs.rank}, max_loras={needs.count}, max_cpu_loras={needs.count})",)


TENSORRT_LLM = RuntimeRules(
    name="tensorrt-llm",
    title="TensorRT-LLM",
    source_version="007e181b",
    tested_against="nothing, the source was only read: its package cannot be installed",
    preconditions=(shared.peft_files(_LOAD), shared.only_lora(_KEYS)),
    rules=(
        shared.scale(
            scales.of_tensor_with_rslora,
            "`alpha_pattern`: the scale is always `lora_alpha` / the tensors' rank",
            _LOAD,
            repairs.FOLD_UNIFORM,
        ),
        RuntimeRule(
            "dora_experts",
            "refuses",
            "DoRA of experts",
            lambda subject, runtime: (
                when.targets_in(frozenset(["w1", "w2", "w3"]))(subject, runtime)
                if "dora" in subject.spec.traits
                else None
            ),
            repairs.AS_LORA,
            f"{_LOAD} has a check, but it may never trigger",
        ),
        shared.saved_modules(
            "changes", f"{_BUILD}: read when an engine is built, from the first adapter only"
        ),
        *shared.copied_embeddings(_BUILD),
        shared.token_rows("changes", f"{_KEYS}: names with embed_tokens are ignored"),
        RuntimeRule(
            "embeddings",
            "changes",
            "updates of embeddings or of `lm_head`",
            when.targets_in(frozenset(["lm_head", "embed_tokens"])),
            repairs.MERGE,
            f"{_KEYS}: silently ignored",
        ),
        shared.trained_biases("changes", _LOAD),
        shared.unmatched("refuses", f"{_KEYS}: KeyError"),
        shared.variants("changes", _LOAD),
        shared.starts_from_base("changes", _LOAD),
        RuntimeRule(
            "targets_unknown",
            "refuses",
            "modules beyond its map",
            when.targets_beyond(_MODULES),
            repairs.MERGE,
            _MAP,
        ),
        RuntimeRule(
            "rank",
            "refuses",
            "a rank above `max_lora_rank` (default 64)",
            option_conditions.rank_above("max_lora_rank", 64),
            repairs.RESIZE,
            "LoraConfig",
        ),
    ),
    options=(
        RuntimeOption("max_lora_rank", "max_lora_rank", default=64),
        RuntimeOption("max_loras", "max_loras", default=4),
        RuntimeOption("max_cpu_loras", "max_cpu_loras", default=4),
    ),
    warnings=("The base is not compared.",),
    start=_start,
    reserves_slots=True,
)
