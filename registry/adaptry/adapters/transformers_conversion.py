"""How transformers converts a checkpoint's tensors when it loads them: other names, and fused experts.

Adapters use the names in memory. Since version 5 these differ from the names on disk: `ViT` has new names,
and the experts of a layer, stored separately, become two 3-D parameters. The tables are those of transformers
5.24 (`transformers/conversion_mapping.py`) for the families that adapters are trained on. For other families
we only know that transformers converts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from adaptry.adapters.base_record import TensorShape
from adaptry.core.lazy_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LoadedTensor:
    """A tensor under its name in memory, with its shape there. `parts` are the tensors on disk from which it
    is made.
    """

    name: str
    parts: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def is_as_stored(self) -> bool:
        """Whether loading leaves it unchanged."""
        return self.parts == (self.name,)


_Rules = tuple[tuple[str, str], ...]

_VIT: _Rules = (
    (r"encoder\.layer\.", "layers."),
    (r"attention\.query", "q_proj"),
    (r"attention\.key", "k_proj"),
    (r"attention\.value", "v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)
_VIT_AS_ENCODER: _Rules = (  # encoder-decoder models such as TrOCR, whose names stay as they are
    (r"^encoder\.encoder\.layer\.", "encoder.layers."),
    *((rf"^(encoder\.layers\.\d+\.(?:attention\.)?){old}", rf"\1{new}") for old, new in _VIT[1:4]),
    *((rf"^(encoder\.layers\.\d+\.){old}", rf"\1{new}") for old, new in _VIT[4:]),
)
_SWIN: _Rules = (
    (r"attention\.self\.query", "attention.q_proj"),
    (r"attention\.self\.key", "attention.k_proj"),
    (r"attention\.self\.value", "attention.v_proj"),
    *_VIT[4:],
)
_DINOV2: _Rules = (
    (r"attention\.attention\.query", "attention.q_proj"),
    (r"attention\.attention\.key", "attention.k_proj"),
    (r"attention\.attention\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"mlp\.weights_out", "mlp.down_proj"),
)
_SEGFORMER: _Rules = (
    (r"encoder\.patch_embeddings\.(\d+)\.", r"stages.\1.patch_embeddings."),
    (r"encoder\.block\.(\d+)\.", r"stages.\1.blocks."),
    (r"encoder\.layer_norm\.(\d+)", r"stages.\1.layer_norm"),
    *_SWIN[:3],
    (r"attention\.self\.sr", "attention.sequence_reduction.sequence_reduction"),
    (r"attention\.self\.layer_norm", "attention.sequence_reduction.layer_norm"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (r"mlp\.dense([12])", r"mlp.fc\1"),
    (r"layer_norm_1", "layernorm_before"),
    (r"layer_norm_2", "layernorm_after"),
)
_EXAONE: _Rules = (
    (r"^transformer\.wte\.", "model.embed_tokens."),
    (r"^transformer\.h\.", "model.layers."),
    (r"^transformer\.ln_f\.", "model.norm."),
    (r"\.attn\.attention\.", ".self_attn."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"\.ln_1\.", ".input_layernorm."),
    (r"\.ln_2\.", ".post_attention_layernorm."),
    (r"\.mlp\.c_fc_0\.", ".mlp.gate_proj."),
    (r"\.mlp\.c_fc_1\.", ".mlp.up_proj."),
    (r"\.mlp\.c_proj\.", ".mlp.down_proj."),
)
_QWEN_VL: _Rules = (
    (r"^visual", "model.visual"),
    (r"^model(?!\.(language_model|visual))", "model.language_model"),
)
_GRANITE_MOE: _Rules = (
    (r"block_sparse_moe\.input_linear\.weight", "block_sparse_moe.experts.gate_up_proj"),
    (r"block_sparse_moe\.output_linear\.weight", "block_sparse_moe.experts.down_proj"),
    (r"block_sparse_moe\.router\.layer\.weight", "block_sparse_moe.router.weight"),
)
_MIXTRAL: _Rules = ((r"\.block_sparse_moe\.", ".mlp."),)
_TEXT_PART: _Rules = ((r"^model\.language_model\.", "model."),)

_ARIA: _Rules = (
    (r"mlp\.experts\.fc1\.weight", "mlp.experts.gate_up_proj"),
    (r"mlp\.experts\.fc2\.weight", "mlp.experts.down_proj"),
)
_SPEECH_PARTS: _Rules = ((r"^encoder\.", "model.encoder."), (r"^projector\.", "model.projector."))

_PIXIO: _Rules = (*_VIT, (r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"))
_COHERE_ASR: _Rules = (
    (r"encoder\.pre_encode\.conv\.", "encoder.subsampling.layers."),
    (r"encoder\.pre_encode\.out\.", "encoder.subsampling.linear."),
    (r"transf_decoder\._embedding\.position_embedding\.pos_enc", "decoder.pos_emb.weight"),
    (r"transf_decoder\._embedding\.token_embedding", "decoder.embed_tokens"),
    (r"transf_decoder\._embedding\.layer_norm", "decoder.embedding_layernorm"),
    (r"transf_decoder\._decoder\.final_layer_norm", "decoder.norm"),
    (r"transf_decoder\._decoder\.layers", "decoder.layers"),
    (r"encoder_decoder_proj\.", "decoder.proj."),
    (r"encoder\.(.+)\.self_attn\.linear_([qkv])", r"encoder.\1.self_attn.\2_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_out", r"encoder.\1.self_attn.o_proj"),
    (r"encoder\.(.+)\.self_attn\.linear_pos", r"encoder.\1.self_attn.relative_k_proj"),
    (r"encoder\.(.+)\.self_attn\.pos_bias_([uv])", r"encoder.\1.self_attn.bias_\2"),
    (r"\.first_sub_layer\.query_net", ".self_attn.q_proj"),
    (r"\.first_sub_layer\.key_net", ".self_attn.k_proj"),
    (r"\.first_sub_layer\.value_net", ".self_attn.v_proj"),
    (r"\.first_sub_layer\.out_projection", ".self_attn.o_proj"),
    (r"\.second_sub_layer\.query_net", ".encoder_attn.q_proj"),
    (r"\.second_sub_layer\.key_net", ".encoder_attn.k_proj"),
    (r"\.second_sub_layer\.value_net", ".encoder_attn.v_proj"),
    (r"\.second_sub_layer\.out_projection", ".encoder_attn.o_proj"),
    (r"\.third_sub_layer\.dense_in", ".mlp.fc1"),
    (r"\.third_sub_layer\.dense_out", ".mlp.fc2"),
    (r"\.layer_norm_1\.", ".input_layernorm."),
    (r"\.layer_norm_2\.", ".post_attention_layernorm."),
    (r"\.layer_norm_3\.", ".final_layernorm."),
    (r"\.conv\.batch_norm", ".conv.norm"),
    (r"log_softmax\.mlp\.layer0", "proj_out"),
)
_PADDLEOCR_VL: _Rules = (
    (r"^mlp_AR", "model.projector"),
    (r"^visual", "model.visual"),
    (r"^model(?!(\.visual|\.projector|\.language_model))", "model.language_model"),
)
_VIDEO_LLAVA: _Rules = (
    (r"^language_model\.lm_head", "lm_head"),
    (r"^language_model\.model", "model.language_model"),
    (r"^language_model", "model.language_model"),
    (r"^(image_tower|video_tower)\.(?:vision_model\.)?", r"model.\1."),
    (r"^multi_modal_projector", "model.multi_modal_projector"),
)

# Each rule is applied to every name, in order, as in transformers.
_RENAMES: Mapping[str, _Rules] = {
    **dict.fromkeys(("vit", "deit", "beit", "ijepa", "vivit", "vit_mae"), _VIT),
    "vit_msn": ((r"^encoder\.", "vit.encoder."), *_VIT),
    **dict.fromkeys(("dinov2", "dinov2_with_registers"), _DINOV2),
    **dict.fromkeys(("aria", "aria_text"), _ARIA),
    **dict.fromkeys(("granite_speech", "granite_speech_plus"), _SPEECH_PARTS),
    "flint": ((r"self_attn\.softmax_offset", "self_attn.sinks"),),
    "colpali": ((r"^vlm\.language_model\.model\.", "vlm.language_model."),),
    **dict.fromkeys(
        ("llava_next", "llava_next_video", "llava_onevision"), ((r"^image_newline", "model.image_newline"),)
    ),
    "audio-spectrogram-transformer": _VIT,
    "vision-encoder-decoder": _VIT_AS_ENCODER,
    "swin": _SWIN,
    "segformer": _SEGFORMER,
    "exaone": _EXAONE,
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl"), _QWEN_VL),
    **dict.fromkeys(("granitemoe", "granitemoeshared", "granitemoehybrid"), _GRANITE_MOE),
    **dict.fromkeys(("mixtral", "minimax", "minimax_m2"), _MIXTRAL),
    "phimoe": (*_MIXTRAL, (r"\.gate\.weight", ".router.weight")),
    **dict.fromkeys(("qwen3_5_text", "qwen3_5_moe_text", "gemma3n_text"), _TEXT_PART),
    "nemotron_h": ((r"^backbone\.", "model."),),
    "altclip": ((r"layer\.", "layers."), (r"^vision_model\.vision_model\.", "vision_model.")),
    "shieldgemma2": ((r"^((?:model\.)+)language_model\.model\.", r"\1language_model."),),
    "pixio": _PIXIO,
    "timesfm2_5": ((r"ff0", "fc1"), (r"ff1", "fc2")),
    "cohere_asr": _COHERE_ASR,
    "paddleocr_vl": _PADDLEOCR_VL,
    "video_llava": _VIDEO_LLAVA,
    "ultrabert": ((r"^ultrabert\.", "model."), (r"^cls\.", "head.decoder.")),
    "gpt_neox": ((r"^embed_out\.", "lm_head."),),
}

_CONVERTED = frozenset(
    """
    axk1 axk2 bailing_hybrid conditional_detr cosmos3_edge cosmos3_omni d_fine deepseek_ocr2 deepseek_v4
    deformable_detr detr dinov3_convnext dinov3_vit dory dots3_note dots3_note_text emu3 ernie4_5_vl_moe
    gemma4_unified glm5_next glm5_next_text gradium_phonon_tts gte hrm_text hunyuan_vl hy_v3 hy_v4
    hy_v4_vl hy_v4_vl_text hyperclovax_vision_v2 inkling2 inkling2_loop inkling2_loop_text inkling2_text
    inkling_mm_model jev jina_embeddings_v3 kimi_k25 kimi_linear kolibri1 laguna lara_mini
    lfm3_vl_vision lw_detr maskformer mimi mimo_v2_flash minimax_m3_vl mistral_large4
    mistral_large4_text molmo2 molmo2_text nemo_speechlm nemotron_h_omni nomic_bert olmo_hybrid
    paddleocr_vl pi0 pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 qianfan_ocr qwen2_5_omni_thinker
    qwen3_omni_moe qwen3_omni_moe_thinker qwen4_exp_text radio rf_detr rt_detr rt_detr_v2 sam3_tracker
    sam3_tracker_video sapiens2 sarvam_moe step3p5_vision step3p7 t5gemma2_encoder tipsv2 tipsv2_dpt
    tipsv2_text_model tipsv2_vision_model ultravbert unlimited_ocr unlimited_ocr_text vibevoice_asr
    """.split()  # noqa: SIM905  (as a list it would be a page)
)

_DIVIDED = re.compile(r"\.mlp\.weights_in\.")
"""DINOv2's fused gate and up projection, of its largest model."""

_EXPERT = re.compile(
    r"(?P<path>.+\.experts)\.(?P<number>\d+)\.(?P<role>gate_proj|up_proj|down_proj|w1|w2|w3)\.weight"
)
_GATE, _UP, _DOWN = ("gate_proj", "w1"), ("up_proj", "w3"), ("down_proj", "w2")


def tensors_in_memory(tensors: Mapping[str, TensorShape], model_type: str) -> Iterator[LoadedTensor]:
    """Every tensor as it is in memory. Separately stored experts are fused if all are present and have equal
    shapes.
    """
    experts: dict[str, dict[str, dict[int, str]]] = {}
    rules = [(re.compile(old), new) for old, new in _RENAMES.get(model_type, ())]
    for disk, tensor in tensors.items():
        name = disk
        for pattern, new in rules:
            name = pattern.sub(new, name)
        if match := _EXPERT.fullmatch(name):
            roles = experts.setdefault(match["path"], {})
            roles.setdefault(match["role"], {})[int(match["number"])] = disk
        else:
            yield LoadedTensor(name, (disk,), tensor.shape)
    for path, roles in experts.items():
        yield from _fused(path, roles, tensors)


def is_converted_on_load(model_types: Iterable[str], tensors: Iterable[str] = ()) -> bool:
    """Whether transformers converts such a model at load, by rules that the tables here lack. `tensors` are
    the names on disk: some models of a family have weights that loading divides.
    """
    return not _CONVERTED.isdisjoint(model_types) or any(map(_DIVIDED.search, tensors))


def _fused(
    path: str, roles: Mapping[str, Mapping[int, str]], tensors: Mapping[str, TensorShape]
) -> Iterator[LoadedTensor]:
    """The 3-D parameters of a layer's experts: gate stacked on up, and down."""
    gate, up, down = (
        next((roles[role] for role in names if role in roles), {}) for names in (_GATE, _UP, _DOWN)
    )
    upper = ("gate_up_proj", (gate, up)) if gate else ("up_proj", (up,))
    for name, stacks in (upper, ("down_proj", (down,))):
        shape = _stacked(stacks, tensors)
        if shape:
            parts = tuple(stack[number] for number in sorted(stacks[0]) for stack in stacks)
            yield LoadedTensor(f"{path}.{name}", parts, shape)


def _stacked(
    stacks: Sequence[Mapping[int, str]], tensors: Mapping[str, TensorShape]
) -> tuple[int, ...] | None:
    """The shape [experts, rows of all stacks, columns]; None if an expert is missing or differs from the
    others.
    """
    count = len(stacks[0])
    if not count or any(set(stack) != set(range(count)) for stack in stacks):
        return None
    shapes = {tensors[name].shape for stack in stacks for name in stack.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2:
        return None
    return (count, shape[0] * len(stacks), shape[1])
