"""Rules of llama.cpp: its converter writes GGUF, and its loader finds the base's tensors by name."""

from __future__ import annotations

from adaptry.checks.runtimes import (
    base_conditions,
    field_conditions,
    llamacpp_classes,
    llamacpp_tensors,
    name_conditions,
    repairs,
    scales,
    shared,
)
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes.llamacpp_names import REMOVED_PARTS, first_alias
from adaptry.checks.runtimes.name_readers import any_prefixes_of_models
from adaptry.checks.runtimes.rule import RuntimeRule, RuntimeRules, ServerNeeds

_TENSORS = "convert_lora_to_gguf.py · get_tensors"
_ALPHA = "convert_lora_to_gguf.py · set_gguf_parameters; llama-adapter.h · get_scale"
_INIT = "llama-adapter.cpp · llama_adapter_lora_init_impl"
_DROPPED = (".base_layer.weight", "_layernorm", ".norm")
_CONFIG = "convert_lora_to_gguf.py reads lora_alpha, and no other field"


def _start(needs: ServerNeeds) -> tuple[str, ...]:
    return ("--lora", "FILE.gguf") * needs.count


LLAMACPP = RuntimeRules(
    name="llama.cpp",
    title="llama.cpp",
    source_version="0b03adaa",
    tested_against="llama.cpp itself, on the CPU, and its converter",
    preconditions=(shared.peft_files(_TENSORS), shared.only_lora(_TENSORS)),
    rules=(
        shared.scale(
            scales.of_tensor_or_one,
            "rsLoRA, `alpha_pattern` or an alpha of 0: the scale is `lora_alpha` / the tensors' rank, or 1",
            _ALPHA,
            repairs.FOLD_UNIFORM,
        ),
        RuntimeRule(
            "config_incomplete",
            "refuses",
            "no `lora_alpha` in the config",
            field_conditions.field_missing("lora_alpha"),
            repairs.SAVE_AGAIN,
            f"{_ALPHA}: a KeyError",
        ),
        shared.dora("refuses", f"{_TENSORS} exits on an unknown key", by_file=True),
        RuntimeRule(
            "saved_modules",
            "refuses",
            "whole modules (`modules_to_save`) or embeddings",
            when.replaced_unnamed(*_DROPPED),
            repairs.LEAVE_OUT,
            f"{_TENSORS} exits on an unknown key",
        ),
        RuntimeRule(
            "tensors_dropped",
            "changes",
            "whole norms, or weights of the base other than embeddings (`….base_layer.weight`)",
            name_conditions.dropped_by_name(*_DROPPED),
            repairs.LEAVE_OUT,
            f"{_TENSORS}; {_INIT} ignores norms",
        ),
        *shared.copied_embeddings(f"{_TENSORS} ignores .base_layer.weight"),
        shared.token_rows("refuses", f"{_TENSORS} exits on an unknown key"),
        shared.trained_biases("refuses", f"{_TENSORS} exits on an unknown key", by_file=True),
        RuntimeRule(
            "tensors_unmatched",
            "refuses",
            "tensors that are not factors, or with an adapter's name inside (`lora_A.default.weight`)",
            name_conditions.no_factor(but=_DROPPED),
            repairs.SPELL,
            f"{_TENSORS} exits on an unknown key",
        ),
        shared.prefix(f"{_TENSORS} (seen)"),
        RuntimeRule(
            "names_apart",
            "refuses",
            "factors of a module whose names differ in more than the factor or `language_model.`",
            name_conditions.factor_names_differ(*REMOVED_PARTS),
            repairs.SPELL,
            f"{_TENSORS}: an assertion that both exist",
        ),
        *shared.other_method(_CONFIG),
        *shared.factor_shapes(f"{_TENSORS}: an assertion; {_INIT}", rank=False),
        shared.wrapped_names("refuses", f"{_TENSORS}: can not map tensor"),
        RuntimeRule(
            "names",
            "refuses",
            "modules that the base does not have, such as layers of a deeper model",
            llamacpp_tensors.except_towers(name_conditions.not_in_base(any_prefixes_of_models, first_alias)),
            repairs.DISK_NAMES,
            "convert_lora_to_gguf.py: can not map tensor",
        ),
        shared.variants("changes", _CONFIG, but=("alora",)),
        shared.starts_from_base("changes", _CONFIG),
        RuntimeRule(
            "module_kind",
            "refuses",
            "updates of convolutions, of fused attention or of norms, outside towers",
            llamacpp_tensors.except_towers(when.kinds("conv", "attention", "norm", "flat")),
            repairs.MERGE,
            _INIT,
        ),
        RuntimeRule(
            "towers",
            "changes",
            "modules outside the language model of a multimodal base: the converter leaves them out",
            llamacpp_tensors.towers,
            repairs.MERGE,
            "conversion/base.py · TextModel.filter_tensors",
        ),
        shared.transposed_experts("convert_lora_to_gguf.py: by the base's converter"),
        RuntimeRule(
            "experts",
            "refuses",
            "fused experts (`target_parameters`)",
            llamacpp_tensors.fused_experts,
            repairs.SPLIT_FOR_GGUF,
            "conversion/base.py · map_tensor_name: can not map tensor",
        ),
        RuntimeRule(
            "experts_in_base",
            "refuses",
            "the same, if the base stores the experts of a layer in one tensor, as gpt-oss does",
            llamacpp_tensors.experts_fused_in_base,
            repairs.MERGE,
            "conversion/base.py · map_tensor_name: can not map tensor",
        ),
        RuntimeRule(
            "experts_incomplete",
            "refuses",
            "updates of some weights of a layer's experts, but not of all",
            llamacpp_tensors.incomplete_experts,
            repairs.FILL_EXPERTS,
            "conversion/qwen.py and others · prepare_tensors: unprocessed experts",
        ),
        RuntimeRule(
            "experts_of_several_ranks",
            "refuses",
            "updates of one weight of a layer's experts that have different ranks",
            llamacpp_tensors.experts_of_several_ranks,
            repairs.FILL_EXPERTS,
            "convert_lora_to_gguf.py · LoraTorchTensor: torch.stack",
        ),
        RuntimeRule(
            "embedding_tied",
            "refuses",
            "an update of an embedding that is also the output head: the server ends",
            llamacpp_tensors.tied_embedding,
            repairs.MERGE,
            "llama-graph.cpp · build_lora_mm uses it for the head, with the embedding's shapes (observed)",
        ),
        RuntimeRule(
            "base_class",
            "refuses",
            "a base of a class that the converter does not know, such as MPT's",
            llamacpp_classes.class_unknown,
            "serve it with another engine: llama.cpp cannot load its base either",
            "conversion/__init__.py · TEXT_MODEL_MAP",
        ),
        RuntimeRule(
            "base_quantised",
            "needs",
            "a base that bitsandbytes or AWQ quantised: the converter ends with an error",
            llamacpp_classes.quantised_beyond,
            repairs.WRITE_GGUF,
            "conversion/base.py · dequant_model",
        ),
        RuntimeRule(
            "rearranged",
            "refuses",
            "`kv_b_proj` of DeepSeek-V2, DeepSeek-V3 and GLM-4.7-Flash, and `in_proj` of Falcon-H1",
            llamacpp_tensors.rearranged,
            repairs.MERGE,
            "conversion/deepseek.py, conversion/falcon_h1.py · modify_tensors",
        ),
        RuntimeRule(
            "not_applied",
            "changes",
            "`q_proj`, `q_a_proj`, `q_b_proj`, `kv_a_proj_with_mqa` and `lm_head` of DeepSeek-V2, DeepSeek-V3"
            " and GLM-4.7-Flash: it ignores their updates",
            llamacpp_tensors.unapplied,
            repairs.MERGE,
            "src/models/deepseek2.cpp: ggml_mul_mat in place of build_lora_mm",
        ),
        RuntimeRule(
            "fan_in_fan_out",
            "changes",
            "`fan_in_fan_out`, unless the base is known and has no such weights",
            base_conditions.stored_transposed,
            repairs.PLAIN_SIDES,
            _CONFIG,
        ),
    ),
    warnings=(
        "Adapters are given at start; later, only their scales can be changed.",
        "The base is compared by architecture, and each tensor by name and shape.",
    ),
    start=_start,
    reads=any_prefixes_of_models,
    reads_method=False,
    reads_rank=False,
)
