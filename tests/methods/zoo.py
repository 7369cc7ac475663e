"""Tiny models of many architectures of transformers, made by one rule: the default config with small sizes.

A model is named by its type (`mobilebert`). Its class is the first one with a head in the order of `CLASSES`,
since users adapt such classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

# (`Any`, here and below: transformers is not typed.)
SMALL: Mapping[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "hidden_dim"), 32),
    **dict.fromkeys(("word_embed_proj_dim", "feature_size", "decoder_hidden_size"), 32),
    **dict.fromkeys(("intermediate_size", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "ffn_dim"), 48),
    **dict.fromkeys(("d_inner", "n_inner", "ffn_hidden_size", "dff", "mlp_dim"), 48),
    "shared_expert_intermediate_size": 48,
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_dim"), 24),
    **dict.fromkeys(("num_hidden_layers", "encoder_layers", "decoder_layers", "num_layers", "n_layer"), 2),
    **dict.fromkeys(("n_layers", "num_encoder_layers", "num_decoder_layers", "num_blocks"), 2),
    **dict.fromkeys(("num_attention_heads", "encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_heads", "n_head", "n_heads", "attention_window"), 4),
    **dict.fromkeys(("num_key_value_heads", "window_size", "type_vocab_size"), 2),
    **dict.fromkeys(("vocab_size", "tgt_vocab_size", "src_vocab_size", "decoder_vocab_size"), 96),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("max_source_positions", "max_target_positions"), 64),
    **dict.fromkeys(("d_kv", "head_dim", "d_head", "attention_head_size", "kv_lora_rank"), 8),
    **dict.fromkeys(("qk_nope_head_dim", "v_head_dim", "qk_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "patch_size"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "top_k", "n_group", "topk_group"), 1),
    **dict.fromkeys(("bos_token_id", "decoder_start_token_id"), 1),
    **dict.fromkeys(("image_size", "num_mel_bins", "embedding_size", "true_hidden_size"), 16),
    **dict.fromkeys(("intra_bottleneck_size", "q_lora_rank", "projection_dim"), 16),
    **dict.fromkeys(("num_labels", "num_channels"), 3),
    "depths": [1, 1],
    "block_sizes": [1, 1],
    "hidden_sizes": [8, 16],
    "pad_token_id": 0,
    "eos_token_id": 2,
    "conv_dim": (8, 8),
    "conv_stride": (4, 4),
    "conv_kernel": (8, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
"""The sizes of a tiny model, for the fields that a config has."""
CLASSES = (
    *("SEQ_TO_SEQ_CAUSAL_LM", "CAUSAL_LM", "SPEECH_SEQ_2_SEQ", "MASKED_LM", "SEQUENCE_CLASSIFICATION"),
    *("IMAGE_TEXT_TO_TEXT", "IMAGE_CLASSIFICATION", "CTC", "AUDIO_CLASSIFICATION", "OBJECT_DETECTION"),
    *("SEMANTIC_SEGMENTATION", "VIDEO_CLASSIFICATION", "PRETRAINING"),
)
_DERIVED = ("model_type", "transformers_version", "out_features", "out_indices", "stage_names")
_IDS = torch.tensor([[5, 9, 17, 30, 41, 8, 7, 11]])

KINDS = """
afmoe albert apertus1p5_text aria aria_text aya_vision bart bert bert-generation big_bird
bigbird_pegasus biogpt bitnet blenderbot blenderbot-small bloom camembert clip clip_text_model
clip_vision_model cohere cohere2 colpali convbert ctrl cwm data2vec-audio data2vec-text deberta
deberta-v2 deepseek_vl deit diffllama dinov2 dinov2_with_registers distilbert doge electra
encoder-decoder ernie ernie4_5 eurobert exaone4 falcon falcon_mamba flaubert flex_olmo flint fnet fsmt
gemma gemma2 gemma3_text git glm glm4 glm4_moe gpt2 gpt_bigcode gpt_neox gpt_neox_japanese gpt_oss
granite granite_speech granitemoe granitemoeshared helium hubert ibert idefics3 ijepa imagegpt internvl
jais2 led lfm2 llama llama4_text llava llava_next llava_onevision longformer longt5 m2m_100 mamba
marian mbart megatron-bert mistral mixtral mobilebert modernbert mpnet mpt mra mt5 musicflamingo mvp
nanochat nystromformer olmo olmo2 olmoe openai-gpt opt ovis2 pegasus persimmon phi phi3 phimoe pixio
plbart prophetnet qwen2 qwen2_audio qwen2_moe qwen3 qwen3_moe qwen3_next regnet rembert resnet roberta
roberta-prelayernorm roc_bert roformer seed_oss sew smollm3 smolvlm stablelm starcoder2 swin t5 tapas
trocr ultrabert umt5 unispeech video_llava vision-encoder-decoder visual_bert vit vit_mae vit_msn
wav2vec2 wavlm whisper xglm xlm xlm-roberta xlnet yoso
""".split()  # noqa: SIM905  (as a list it would be a page)
"""The types of which this rule makes a model that works."""


def class_of(kind: str) -> Any:
    """The class of a type of model. Raises `KeyError` if transformers has none."""
    names = (f"MODEL_FOR_{name}_MAPPING_NAMES" for name in CLASSES)
    for mapping in (*names, "MODEL_MAPPING_NAMES"):
        if name := getattr(modeling_auto, mapping, {}).get(kind):
            return getattr(transformers, name if isinstance(name, str) else name[0])
    raise KeyError(kind)


def save(kind: str, folder: Path) -> Path:
    """Saves the base in `folder`, unless it exists."""
    if not (folder / "config.json").exists():
        _build(kind).save_pretrained(folder)
    return folder


def load(kind: str, folder: Path) -> Any:
    return class_of(kind).from_pretrained(folder, dtype="auto").eval()


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Fixed inputs, so that the outputs of two copies of a model can be compared."""
    torch.manual_seed(3)
    name, config = model.main_input_name, model.config
    found = {name: _IDS}
    if name == "pixel_values":
        size = getattr(config, "image_size", 16)
        found[name] = torch.randn(
            1, 3, size if isinstance(size, int) else 16, size if isinstance(size, int) else 16
        )
    elif name == "input_features":
        found[name] = torch.randn(1, getattr(config, "num_mel_bins", 16), 128)
    elif name == "input_values":
        found[name] = torch.randn(1, 2000)
    if getattr(config, "is_encoder_decoder", False):
        found["decoder_input_ids"] = _IDS[:, :4]
    return found


def _build(kind: str) -> Any:
    torch.manual_seed(0)
    config = _shrink(transformers.AutoConfig.for_model(kind))
    with warnings.catch_warnings(action="ignore"):
        model = class_of(kind)(_made_again(config))
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms as if trained: neither 0 nor 1
            parameter += torch.randn(parameter.shape) * 0.05
    return model.eval()


def _shrink(config: Any) -> Any:
    given = config.to_dict()
    for name, value in SMALL.items():
        old = given.get(name)
        if old is None:
            continue
        small = value
        if isinstance(old, list | tuple) and not isinstance(value, list | tuple):
            small = [value] * min(2, len(old))
        elif isinstance(value, list | tuple) and not isinstance(old, list | tuple):
            small = value[0]
        try:
            setattr(config, name, small)
        except (ValueError, TypeError, AttributeError):
            continue  # a field that others determine
    for name, kinds in given.items():
        if name.endswith(("layer_types", "layers_block_type")) and isinstance(kinds, list) and kinds:
            setattr(config, name, [kinds[0], kinds[-1]])
        if isinstance(part := getattr(config, name, None), transformers.PretrainedConfig):
            _shrink(part)
    return config


def _made_again(config: Any) -> Any:
    """The config with the fields that follow from others, if it can be made from its own fields."""
    fields = {
        name: value
        for name, value in config.to_dict().items()
        if name not in _DERIVED and not name.startswith("_")
    }
    try:
        return type(config)(**fields)
    except (ValueError, TypeError, AttributeError, KeyError):
        return config
