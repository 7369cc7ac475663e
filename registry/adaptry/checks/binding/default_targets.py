"""The modules that PEFT 0.21 adapts if a config has no `target_modules`, by method and model type.

Read from `peft/utils/constants.py`; a test compares them with the installed PEFT. A value is a list of names,
or a pattern (gemma4). If PEFT has no entry, it refuses such a config.
"""

from __future__ import annotations

from collections.abc import Mapping

_Targets = dict[str, str]

_LORA: _Targets = {
    "t5": "q v",
    "mt5": "q v",
    "bart": "q_proj v_proj",
    "gpt2": "c_attn",
    "bloom": "query_key_value",
    "blip-2": "q v q_proj v_proj",
    "opt": "q_proj v_proj",
    "gptj": "q_proj v_proj",
    "gpt_neox": "query_key_value",
    "gpt_neo": "q_proj v_proj",
    "bert": "query value",
    "roberta": "query value",
    "xlm-roberta": "query value",
    "electra": "query value",
    "deberta-v2": "query_proj value_proj",
    "deberta": "in_proj",
    "layoutlm": "query value",
    "llama": "q_proj v_proj",
    "llama4": "q_proj v_proj",
    "chatglm": "query_key_value",
    "gpt_bigcode": "c_attn",
    "mpt": "Wqkv",
    "RefinedWebModel": "query_key_value",
    "RefinedWeb": "query_key_value",
    "falcon": "query_key_value",
    "btlm": "c_proj c_attn",
    "codegen": "qkv_proj",
    "mistral": "q_proj v_proj",
    "mixtral": "q_proj v_proj",
    "stablelm": "q_proj v_proj",
    "phi": "q_proj v_proj fc1 fc2",
    "gemma": "q_proj v_proj",
    "gemma2": "q_proj v_proj",
    "gemma3_text": "q_proj v_proj",
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
    "qwen2": "q_proj v_proj",
    "qwen3": "q_proj v_proj",
    "nemotron_h": "q_proj k_proj v_proj o_proj",
    "rwkv": "key value receptance output",
    "rwkv7": "r_proj k_proj v_proj o_proj key value",
}


def _as_lora(model_types: str) -> _Targets:
    """LoRA's entries for these model types."""
    return {name: _LORA[name] for name in model_types.split()}


_ADALORA: _Targets = {
    **_as_lora(
        "gpt2 bloom gptj gpt_neox gpt_neo llama llama4 bert gpt_bigcode deberta gemma gemma2 gemma3_text "
        "gemma4 qwen2 qwen3 nemotron_h"
    ),
    "t5": "q k v o wi wo",
    "mt5": "q k v o wi_0 wi_1 wo",
    "bart": "q_proj k_proj v_proj out_proj fc1 fc2",
    "opt": "q_proj k_proj v_proj out_proj fc1 fc2",
    "roberta": "query key value dense",
    "deberta-v2": "query_proj key_proj value_proj dense",
}

_BEFT: _Targets = {
    "t5": "v",
    "mt5": "v",
    "roberta": "value",
    "opt": "v_proj",
    "gptj": "v_proj",
    "gpt_neo": "v_proj",
    "bart": "v_proj",
    "llama": "v_proj",
    "llama4": "v_proj",
    "mistral": "v_proj",
    "mixtral": "v_proj",
    "bert": "value",
    "deberta-v2": "value_proj",
    "phi": "v_proj",
    "gemma": "v_proj",
    "gemma2": "v_proj",
    "gemma3_text": "v_proj",
    "qwen2": "v_proj",
    "qwen3": "v_proj",
}

_IA3: _Targets = {
    "t5": "k v wo",
    "mt5": "k v wi_1",
    "gpt2": "c_attn mlp.c_proj",
    "bloom": "query_key_value mlp.dense_4h_to_h",
    "roberta": "key value output.dense",
    "opt": "q_proj k_proj fc2",
    "gptj": "q_proj v_proj fc_out",
    "gpt_neox": "query_key_value dense_4h_to_h",
    "gpt_neo": "q_proj v_proj c_proj",
    "bart": "q_proj v_proj fc2",
    "gpt_bigcode": "c_attn mlp.c_proj",
    "llama": "k_proj v_proj down_proj",
    "llama4": "q_proj v_proj down_proj",
    "mistral": "k_proj v_proj down_proj",
    "mixtral": "k_proj v_proj w2",
    "bert": "key value output.dense",
    "deberta-v2": "key_proj value_proj output.dense",
    "deberta": "in_proj output.dense",
    "RefinedWebModel": "query_key_value dense_4h_to_h",
    "RefinedWeb": "query_key_value dense_4h_to_h",
    "falcon": "query_key_value dense_4h_to_h",
    "phi": "q_proj v_proj fc2",
    "gemma": "q_proj v_proj down_proj",
    "gemma2": "q_proj v_proj down_proj",
    "gemma3_text": "q_proj v_proj down_proj",
    "qwen2": "q_proj v_proj down_proj",
    "qwen3": "q_proj v_proj down_proj",
}

_GEMMA_NORMS = (
    "input_layernorm post_attention_layernorm pre_feedforward_layernorm post_feedforward_layernorm norm"
)

_LN_TUNING: _Targets = {
    "llama": "input_layernorm post_attention_layernorm norm",
    "bloom": "input_layernorm post_attention_layernorm ln_f",
    "llava": "multi_modal_projector input_layernorm post_attention_layernorm norm embed_tokens lm_head",
    "t5": "layer_norm final_layer_norm",
    "mt5": "layer_norm final_layer_norm",
    "bart": "self_attn_layer_norm encoder_attn_layer_norm final_layer_norm",
    "gpt2": "ln_1 ln_2 ln_f",
    "blip-2": "layernorm LayerNorm final_layer_norm self_attn_layer_norm",
    "gptj": "ln_1 ln_f",
    "falcon": "input_layernorm post_attention_layernorm ln_f",
    "mistral": "input_layernorm post_attention_layernorm norm",
    "phi": "input_layernorm final_layernorm",
    "gemma": "input_layernorm post_attention_layernorm norm",
    "gemma2": _GEMMA_NORMS,
    "gemma3_text": _GEMMA_NORMS,
    "qwen2": "post_attention_layernorm",
    "qwen3": "post_attention_layernorm",
}

_OSF: _Targets = {
    "llama": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "llama4": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "mistral": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "mixtral": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "gemma": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "gemma2": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "gemma3_text": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "qwen2": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "qwen3": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "phi": "q_proj k_proj v_proj o_proj gate_proj down_proj up_proj",
    "gpt2": "c_attn c_proj",
    "bloom": "query_key_value dense_4h_to_h",
    "opt": "q_proj k_proj v_proj out_proj fc1 fc2",
    "gptj": "q_proj k_proj v_proj out_proj fc_in fc_out",
    "gpt_neox": "query_key_value dense_4h_to_h",
    "falcon": "query_key_value dense_4h_to_h",
    "gpt_bigcode": "c_attn c_proj",
}

_VBLORA: _Targets = {
    **_as_lora(
        "gpt2 bloom gptj gpt_neox gpt_neo llama llama4 bert roberta gpt_bigcode deberta gemma gemma2 "
        "gemma3_text gemma4 qwen2 qwen3 nemotron_h"
    ),
    "t5": "q k v o wi wo",
    "mt5": "q k v o wi_0 wi_1 wo",
    "bart": "q_proj k_proj v_proj out_proj fc1 fc2",
    "opt": "q_proj k_proj v_proj out_proj fc1 fc2",
    "deberta-v2": "query_proj key_proj value_proj dense",
}

_WAVEFT: _Targets = {
    **_as_lora(
        "t5 mt5 bart bloom blip-2 opt gptj gpt_neox gpt_neo bert roberta xlm-roberta electra deberta-v2 "
        "deberta layoutlm llama llama4 chatglm mpt RefinedWebModel RefinedWeb falcon codegen mistral "
        "mixtral stablelm phi gemma gemma2 gemma3_text gemma4 qwen2 qwen3 nemotron_h"
    ),
    "gpt2": "mlp.c_proj",
    "gpt_bigcode": "mlp.c_proj",
}

_BY_METHOD: Mapping[str, _Targets] = {
    **dict.fromkeys(
        [
            "boft",
            "deft",
            "delora",
            "glora",
            "gralora",
            "hira",
            "hra",
            "lily",
            "loha",
            "lokr",
            "lora",
            "miss",
            "oft",
            "peanut",
            "poly",
            "psoft",
            "randlora",
            "road",
            "supertuning",
            "tinylora",
            "unilora",
        ],
        _LORA,
    ),
    "adalora": _ADALORA,
    "beft": _BEFT,
    "ia3": _IA3,
    "ln_tuning": _LN_TUNING,
    "osf": _OSF,
    "vblora": _VBLORA,
    "waveft": _WAVEFT,
    "adamss": _LORA | {"vit": "query value"},
    "c3a": _LORA | {"gpt2": "mlp.c_proj", "gpt_bigcode": "mlp.c_proj"},
    "fourierft": _LORA | {"gpt2": "mlp.c_proj", "gpt_bigcode": "mlp.c_proj"},
    "frod": _LORA | {"phi": "q_proj v_proj", "vit": "query value"},
    "shira": _LORA | {"phi": "q_proj v_proj"},
    "pvera": _LORA | {"phi": "q_proj v_proj", "dinov2": "query value"},
    "vera": _LORA | {"phi": "q_proj v_proj"},
}


def default_targets(method: str, model_type: str) -> list[str] | str | None:
    """Names, or a pattern of whole names; None if PEFT has no entry for this model and method."""
    found = _BY_METHOD.get(method, {}).get(model_type)
    return found if found is None or "*" in found else found.split()


_FEEDFORWARD: Mapping[str, str] = {
    **dict.fromkeys(["llama", "llama4", "mistral", "gemma", "gemma2"], "down_proj"),
    **dict.fromkeys(["gemma3_text", "qwen2", "qwen3"], "down_proj"),
    **dict.fromkeys(["gpt_neox", "RefinedWeb", "RefinedWebModel", "falcon"], "dense_4h_to_h"),
    **dict.fromkeys(["roberta", "bert", "deberta-v2", "deberta"], "output.dense"),
    **dict.fromkeys(["opt", "bart", "phi"], "fc2"),
    **dict.fromkeys(["gpt2", "gpt_bigcode"], "mlp.c_proj"),
    "t5": "wo",
    "mt5": "",
    "bloom": "mlp.dense_4h_to_h",
    "gptj": "fc_out",
    "gpt_neo": "c_proj",
    "mixtral": "w2",
}


def default_feedforward_modules(model_type: str) -> list[str] | None:
    """The `feedforward_modules` that PEFT's IA3 uses if the config has none; None if it has no entry."""
    found = _FEEDFORWARD.get(model_type)
    return None if found is None else found.split()
