"""What llama.cpp takes: what its converter turns to GGUF, and what its loader finds in the base by name."""

from __future__ import annotations

from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import names_read, repairs, scales, shared
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules, ServerNeeds

_TENSORS = "convert_lora_to_gguf.py · get_tensors"
_ALPHA = "convert_lora_to_gguf.py · set_gguf_parameters; llama-adapter.h · get_scale"
_INIT = "llama-adapter.cpp · llama_adapter_lora_init_impl"
_CONFIG = "convert_lora_to_gguf.py reads lora_alpha, and no other field"


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--lora", "FILE.gguf") * needs.count


LLAMACPP = RuntimeRules(
    name="llama.cpp",
    title="llama.cpp",
    source_version="0b03adaa",
    tested_against="llama.cpp itself, on the CPU, and its own converter",
    preconditions=(shared.peft_files(_TENSORS), shared.only_lora(_TENSORS)),
    rules=(
        shared.scale(
            scales.of_tensor,
            "rsLoRA or `alpha_pattern`: the scale is the one `lora_alpha` over the rank of the tensors",
            _ALPHA,
            repairs.FOLD_UNIFORM,
        ),
        RuntimeRule(
            "config_incomplete",
            "refuses",
            "no `lora_alpha` in the config",
            when.field_missing("lora_alpha"),
            repairs.SAVE_AGAIN,
            f"{_ALPHA}: a KeyError",
        ),
        shared.dora("refuses", f"{_TENSORS} exits on a key it does not know"),
        shared.saved_modules("refuses", f"{_TENSORS} exits on a key it does not know"),
        shared.copied_embeddings(f"{_TENSORS} passes over .base_layer.weight"),
        shared.token_rows("refuses", f"{_TENSORS} exits on a key it does not know"),
        shared.trained_biases("refuses", f"{_TENSORS} exits on a key it does not know"),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are no factors, or have an adapter's name inside (`lora_A.default.weight`)",
            names_read.no_factor(names_read.any_prefixes_of_models),
            repairs.SPELL,
            f"{_TENSORS} exits on a key it does not know",
        ),
        RuntimeRule(
            "prefix",
            "needs",
            "factors without PEFT's prefix or with it twice, which its converter takes and PEFT drops",
            names_read.other_prefix(names_read.any_prefixes_of_models),
            repairs.SPELL,
            f"{_TENSORS} (seen)",
        ),
        shared.wrapped_names("refuses", f"{_TENSORS}: can not map tensor"),
        RuntimeRule(
            "names",
            "refuses",
            "modules that the base does not have, such as those of a deeper one's layers",
            names_read.not_in_base(names_read.any_prefixes_of_models),
            repairs.DISK_NAMES,
            "convert_lora_to_gguf.py: can not map tensor",
        ),
        shared.variants("changes", _CONFIG, but=("alora",)),
        shared.starts_from_base("changes", _CONFIG),
        shared.odd_layers("refuses", _INIT),
        shared.turned_experts("convert_lora_to_gguf.py: through the base's own converter"),
        shared.fused_experts(
            "needs", "convert_lora_to_gguf.py: through the base's own converter", repairs.SPLIT_EXPERTS
        ),
        shared.transposed("changes", _CONFIG),
    ),
    warnings=(
        "Adapters are named when it starts; while it runs, only their scales change.",
        "The base is compared by architecture, and every tensor by name and shape.",
    ),
    start=_start,
)
