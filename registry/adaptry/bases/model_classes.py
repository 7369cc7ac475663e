"""The names of modules in a model with a head and in the bare model in transformers 5.24, by model type.

A model with a head (`LlamaForCausalLM`) has the bare model (`LlamaModel`) as an attribute, so the same
weights have longer names in it. The tables were read from transformers' classes (`base_model_prefix`, where
the class has that attribute) and from `conversion_mapping.py`; a test compares them with the installed
transformers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_MODEL = frozenset(
    """
    afmoe apertus apertus1p5 apertus1p5_text arcee aria aria_text audioflamingo3 axk1 axk2
    aya_vision bailing_hybrid bamba bart beam bigbird_pegasus bitnet blenderbot blenderbot-small blt
    canary chameleon cohere cohere2 cohere2_moe cohere2_vision cohere_asr cohere_compass
    cohere_compass_text conditional_detr cosmos3_edge cosmos3_omni cwm d_fine dab-detr deepseek_ocr2
    deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 deepseek_vl deepseek_vl_hybrid deformable_detr
    deimv2 detr dia diffllama diffusion_gemma dinov3_convnext dinov3_vit doge dory dots1 dots3_note
    dots3_note_text emu3 ernie4_5 ernie4_5_moe ernie4_5_vl_moe eurobert evolla exaone exaone4
    exaone4_5 exaone_moe falcon_h1 fast_vlm flex_olmo flint florence2 fsmt fun_asr_nano fuyu gemma
    gemma2 gemma3 gemma3_text gemma3n gemma3n_text gemma4 gemma4_assistant gemma4_text
    gemma4_unified gemma4_unified_assistant gemma4_unified_text glm glm4 glm46v glm4_moe
    glm4_moe_lite glm4v glm4v_moe glm5_next glm_moe_dsa glm_ocr glmasr glmga got_ocr2 gpt_oss
    gradium_phonon_tts granite granite4_vision granite_docling granite_speech granite_speech_plus
    granite_swa granitemoe granitemoe_swa granitemoehybrid granitemoeshared grounding-dino helium
    higgs_audio_v2 hrm_text hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl hy_v3 hy_v4 hy_v4_vl
    hyperclovax hyperclovax_vision_v2 idefics idefics2 idefics3 inkling2 inkling2_loop
    inkling2_loop_text inkling2_text inkling_mm_model inkling_text internlm3 internvl iquestcoder
    jais2 jamba janus jetmoe jev kimi_k25 kimi_linear kolibri1 kyutai_speech_to_text laguna
    lara_mini lfm2 lfm2_moe lfm2_vl lfm3 lfm3_vl lighton_ocr llama llama4_text llava llava_next
    llava_next_video llava_onevision longcat_flash lw_detr m2m_100 marian mask2former maskformer
    maskformer-swin mbart mellum mimo_v2_flash minicpm3 minicpm_ocr minicpmv4_6 minicpmv4_7 minimax minimax_m2
    minimax_m3_vl minimax_m3_vl_text ministral ministral3 mistral mistral3 mistral4 mistral_large4
    mixtral mllama mm-grounding-dino modernbert modernbert-decoder modernvbert molmo2 moonshine
    moonshine_streaming moshi moss_transcribe_diarize muse_glimmer muse_spark musicflamingo musicgen
    musicgen_melody mvp nanochat nemo_speechlm nemotron nemotron3_diarization nemotron_h neomme
    nllb-moe olmo olmo2 olmo3 olmo_hybrid olmoe omniasr omniasr_ctc oneformer openai_privacy_filter
    opt ovis2 paddleocr_vl paligemma patchtsmixer patchtst pegasus pegasus_x perception_lm persimmon
    phi phi3 phi4_multimodal phimoe pi0 plbart pocket_tts pp_chart2table pp_doclayout_v2
    pp_doclayout_v3 pp_doclayout_v4 pp_formulanet pp_ocrv5_mobile_det pp_ocrv5_mobile_rec
    pp_ocrv5_server_det pp_ocrv5_server_rec pp_ocrv6_medium_det pp_ocrv6_small_det
    pp_ocrv6_small_rec pp_ocrv6_tiny_rec qianfan_ocr qwen2 qwen2_5_omni_thinker qwen2_5_vl
    qwen2_audio qwen2_moe qwen2_vl qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_asr
    qwen3_moe qwen3_next qwen3_omni_moe_thinker qwen3_vl qwen3_vl_moe qwen4_exp qwen4_exp_text
    recurrent_gemma rf_detr rt_detr rt_detr_v2 sapiens2 sarvam_mla sarvam_moe seed_oss shieldgemma2
    smollm3 smolvlm solar_open speech_to_text stablelm starcoder2 step3p7 t5gemma t5gemma2
    table-transformer timesfm2_5 trocr ultrabert ultravbert unlimited_ocr vaultgemma vibevoice
    vibevoice_asr video_llama_3 video_llava vipllava voxtral voxtral_realtime whisper xglm youtu
    zamba zamba2 zaya
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Model types whose class with a head has the bare model as `model`."""

_OWN_NAME = frozenset(
    """
    albert audio-spectrogram-transformer beit bert biogpt bit bros canine convbert convnext
    convnextv2 cpmant cvt data2vec-audio data2vec-text data2vec-vision deberta deit depth_pro dinat
    dinov2 dinov2_with_registers distilbert dpt efficientloftr efficientnet electra ernie esm esmc
    flava fnet focalnet funnel git glpn gpt_neox gpt_neox_japanese gte hiera hubert ibert ijepa
    layoutlm layoutlmv2 layoutlmv3 led levit lilt longformer luke lxmert markuplm mgp-str mobilebert
    mobilenet_v1 mobilenet_v2 mobilevit mobilevitv2 mpnet mra nomic_bert nystromformer owlv2 owlvit
    perceiver pixio poolformer prophetnet pvt pvt_v2 reformer regnet rembert resnet roberta
    roberta-prelayernorm roc_bert roformer rwkv segformer sew sew-d speecht5 splinter swiftformer
    swin swin2sr swinv2 tapas textnet timesformer unispeech unispeech-sat videomae vilt visual_bert
    vit vivit vjepa2 wav2vec2 wav2vec2-bert wav2vec2-conformer wavlm yoso
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Model types for which that attribute has the name of the type: `bert`, `roc_bert`."""

_OTHER: Mapping[str, str] = {
    **dict.fromkeys(
        ("falcon_mamba", "mamba", "mamba2", "slanet", "slanext", "tipsv2_dpt", "xlstm"), "backbone"
    ),
    **dict.fromkeys(("bert-generation", "big_bird", "megatron-bert"), "bert"),
    **dict.fromkeys(("deberta-v2",), "deberta"),
    **dict.fromkeys(("timesfm",), "decoder"),
    **dict.fromkeys(("donut-swin",), "donut"),
    **dict.fromkeys(("camembert", "jina_embeddings_v3", "xlm-roberta", "xlm-roberta-xl", "xmod"), "roberta"),
    **dict.fromkeys(("timm_wrapper",), "timm_model"),
    **dict.fromkeys(
        (
            "bloom",
            "codegen",
            "ctrl",
            "dbrx",
            "falcon",
            "flaubert",
            "gpt-sw3",
            "gpt2",
            "gpt_bigcode",
            "gpt_neo",
            "gptj",
            "imagegpt",
            "mpt",
            "mt5",
            "openai-gpt",
            "squeezebert",
            "t5",
            "umt5",
            "xlm",
            "xlnet",
        ),
        "transformer",
    ),
    **dict.fromkeys(("videoprism_vision_model",), "vision_model"),
    **dict.fromkeys(("vit_mae", "vit_msn", "yolos"), "vit"),
    **dict.fromkeys(("colmodernvbert", "colpali", "colqwen2"), "vlm"),
}

_ADAPTERS_CONVERTED = frozenset(
    """
    afmoe altclip apertus1p5_text aria aria_text audioflamingo3 axk1 axk2 aya_vision bailing_hybrid
    beam cohere2_moe cohere_asr colqwen2 cosmos3_edge cosmos3_omni d_fine deepseek_ocr2 deepseek_v2
    deepseek_v3 deepseek_v32 deepseek_v4 deformable_detr dinov3_convnext dinov3_vit dory dots1
    dots3_note_audio_encoder dots3_note_vision_encoder emu3 ernie4_5_moe ernie4_5_vl_moe esm exaone
    exaone_moe flex_olmo flint fuyu gemma3 gemma3n_text gemma4_unified glm4_moe glm4_moe_lite
    glm4v_moe glm5_next glm5_next_text glm_moe_dsa glmasr got_ocr2 gradium_phonon_tts granite_speech
    granite_speech_plus granitemoe granitemoehybrid granitemoeshared gte hrm_text hunyuan_v1_moe
    hunyuan_vl hy_v3 hy_v4 hy_v4_vl hy_v4_vl_text hyperclovax_vision_v2 inkling2 inkling2_loop
    inkling2_loop_text inkling2_text inkling_mm_model internvl jamba jev jina_embeddings_v3 kimi_k25
    kimi_linear kolibri1 laguna lara_mini lfm2_moe lfm3 lfm3_vl_vision llava llava_next
    llava_next_video llava_onevision longcat_flash lw_detr maskformer mellum mimo_v2_flash minimax
    minimax_m2 minimax_m3_vl mistral3 mistral_large4 mistral_large4_text mixtral mlcd mllama molmo2
    musicflamingo nemo_speechlm nemotron_h nomic_bert olmo_hybrid olmoe paddleocr_vl paligemma
    phimoe pi0 pixio pp_chart2table pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 qianfan_ocr
    qwen2_5_omni_thinker qwen2_audio qwen2_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next
    qwen3_omni_moe qwen3_omni_moe_text qwen3_omni_moe_thinker qwen3_vl_moe qwen4_exp_text radio
    rt_detr rt_detr_v2 sam3_tracker sam3_tracker_video sapiens2 sarvam_mla sarvam_moe shieldgemma2
    solar_open step3p5_vision step3p7 swin t5gemma2_encoder timesfm2_5 timm_wrapper tipsv2
    tipsv2_dpt unlimited_ocr vibevoice_asr video_llava videomae vipllava voxtral voxtral_realtime
    yolos
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Model types for which PEFT renames and fuses a LoRA's tensors like transformers does the model's."""

_NEVER_GENERATING = frozenset(
    """
    albert altclip audio-spectrogram-transformer beit bit bros canine colmodernvbert colpali colqwen2
    conditional_detr convbert convnext convnextv2 cvt d_fine dab-detr data2vec-audio data2vec-vision
    deberta deberta-v2 deformable_detr deimv2 deit depth_pro detr diffusion_gemma dinat dinov2
    dinov2_with_registers dinov3_convnext dinov3_vit distilbert donut-swin dots3_note_audio_encoder
    dots3_note_vision_encoder dpt efficientloftr efficientnet esm esmc eurobert flava fnet focalnet
    funnel glpn grounding-dino gte hiera hubert ibert ijepa jev jina_embeddings_v3 layoutlm layoutlmv2
    layoutlmv3 levit lilt longformer luke lw_detr lxmert markuplm mask2former maskformer
    maskformer-swin mgp-str mlcd mm-grounding-dino mobilebert mobilenet_v1 mobilenet_v2 mobilevit
    mobilevitv2 modernbert modernvbert mpnet mra nemotron3_diarization neomme nomic_bert nystromformer
    oneformer openai_privacy_filter owlv2 owlvit patchtsmixer patchtst perceiver pi0 pixio poolformer
    pp_doclayout_v2 pp_doclayout_v3 pp_doclayout_v4 pp_ocrv5_mobile_det pp_ocrv5_mobile_rec
    pp_ocrv5_server_det pp_ocrv5_server_rec pp_ocrv6_medium_det pp_ocrv6_small_det pp_ocrv6_small_rec
    pp_ocrv6_tiny_rec pvt pvt_v2 qwen3_omni_moe_text radio regnet resnet rf_detr rt_detr rt_detr_v2
    sam3_tracker sam3_tracker_video sapiens2 segformer sew sew-d slanet slanext splinter squeezebert
    step3p5_vision swiftformer swin swin2sr swinv2 table-transformer tapas textnet timesfm timesfm2_5
    timesformer timm_wrapper tipsv2 tipsv2_dpt ultrabert ultravbert unispeech unispeech-sat videomae
    videoprism_vision_model vilt visual_bert vit vit_mae vit_msn vivit vjepa2 wav2vec2 wav2vec2-bert
    wav2vec2-conformer wavlm yolos yoso
    """.split()  # noqa: SIM905  (as a list it would be a page)
)
"""Model types above of which no class generates text."""
_GENERATING_TASKS = frozenset(["CAUSAL_LM", "SEQ_2_SEQ_LM"])

_WITH_HEAD = re.compile(r".+(?:For[A-Z]\w+|LMHeadModel|DoubleHeadsModel|WithLMHead|LMHead)|MarianMTModel")
_BARE = re.compile(r".+Model")


EXPERT_MATRICES: Mapping[str, Mapping[str, str]] = {
    "mixtral": {"gate": "gate.weight", "w1": "gate_up_proj", "w3": "gate_up_proj", "w2": "down_proj"},
    "qwen2_moe": {
        "gate": "gate.weight",
        "gate_proj": "gate_up_proj",
        "up_proj": "gate_up_proj",
        "down_proj": "down_proj",
    },
}
"""By family: the names of a layer's router and of its experts' matrices in transformers 4, and the parameters
that replace them in transformers 5. PEFT converts a LoRA's `target_modules` in the same way.
"""

_EXPERT_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("minimax", "minimax_m2", "mixtral"), "mixtral"),
    **dict.fromkeys(
        """
        afmoe beam cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32 dots1 ernie4_5_moe exaone_moe flex_olmo
        glm4_moe glm4_moe_lite glm4v_moe glm_moe_dsa hunyuan_v1_moe longcat_flash mellum olmoe qwen3_moe
        qwen3_next qwen3_omni_moe qwen3_omni_moe_text qwen3_omni_moe_thinker sarvam_mla solar_open
        """.split(),  # noqa: SIM905  (as a list it would be a page)
        "qwen2_moe",
    ),
}


def body_attribute(model_type: str) -> str:
    """The attribute for the bare model in a model with a head; empty if unknown."""
    if model_type in _MODEL:
        return "model"
    return model_type.replace("-", "_") if model_type in _OWN_NAME else _OTHER.get(model_type, "")


def is_known_type(model_type: str) -> bool:
    """Whether the tables above have this type of transformers 5.24; they lack types that have no model with a
    head.
    """
    return bool(body_attribute(model_type)) or converts_adapters(model_type)


def converts_adapters(model_type: str) -> bool:
    """Whether PEFT accepts a LoRA with the model's names on disk as well as with those in memory."""
    return model_type in _ADAPTERS_CONVERTED


def has_head(model_class: str) -> bool | None:
    """Whether a class of transformers is a model with a head; None if its name does not show it."""
    if _WITH_HEAD.fullmatch(model_class):
        return True
    return False if _BARE.fullmatch(model_class) else None


def expert_family(model_type: str) -> str:
    """The key in `EXPERT_MATRICES` of a model type whose targets PEFT converts; empty for all others."""
    return _EXPERT_FAMILIES.get(model_type, "")


def cannot_generate(model_type: str, task: str | None) -> bool:
    """Whether no class of this type has `prepare_inputs_for_generation`, which the constructor of PEFT's
    class for the task reads.
    """
    return task in _GENERATING_TASKS and model_type in _NEVER_GENERATING
