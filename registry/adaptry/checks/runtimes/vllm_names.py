"""The names that the classes of vLLM's models give modules, by the base's architecture: vLLM replaces the
beginnings of names in a base's files, and in adapters.

So an adapter may name a module as transformers does (`model.language_model.layers.0`), although the base's
files have another name for it. Read from the classes themselves in vLLM 0.32 (`hf_to_vllm_mapper`); a test
compares them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from adaptry.adapters.base_record import BaseRecord
from adaptry.checks.runtimes.name_readers import NameReader, leading_prefixes

_Prefixes = tuple[tuple[str, str], ...]
# fmt: off
_GROUPS: Iterable[tuple[str, _Prefixes]] = (
    ("CohereCompassForConditionalGeneration InternS1ProForConditionalGeneration "
     "InternS2MobiusForConditionalGeneration InternS2PreviewForConditionalGeneration "
     "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3_5ForConditionalGeneration "
     "Qwen3_5MoeForConditionalGeneration Qwen4ExpForConditionalGeneration",
     (("model.visual.", "visual."), ("lm_head.", "language_model.lm_head."),
      ("model.language_model.", "language_model.model."))),
    ("BertModel BertSpladeSparseEmbeddingModel BgeM3EmbeddingModel HF_ColBERT RobertaForMaskedLM "
     "RobertaModel XLMRobertaModel",
     (("bert.", "model."), ("roberta.", "model."), ("encoder.", "model.encoder."),
      ("embeddings.", "model.embeddings."))),
    ("Exaone4_5_ForConditionalGeneration JinaVLForRanking OpenPanguVLForConditionalGeneration "
     "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.visual.", "visual."),
      ("lm_head.", "language_model.lm_head."), ("model.", "language_model.model."))),
    ("Gemma4ForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM Qwen4ExpForCausalLM",
     (("model.language_model.", "model."),)),
    ("Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration Glm5NextForConditionalGeneration "
     "GlmOcrForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."), ("model.language_model.", "language_model.model."),
      ("model.visual.", "visual."))),
    ("NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3 "
     "NemotronH_Super_Omni_Reasoning_V3",
     (("language_model.backbone", "language_model.model"),)),
    ("ColQwen3 OpsColQwen3Model Qwen3VLNemotronEmbedModel",
     (("vlm.model.visual.", "visual."), ("vlm.lm_head.", "language_model.lm_head."),
      ("vlm.model.language_model.", "language_model.model."), ("model.visual.", "visual."),
      ("lm_head.", "language_model.lm_head."), ("model.language_model.model.", "language_model.model."),
      ("model.language_model.", "language_model.model."))),
    ("DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM UnlimitedOCRForCausalLM",
     (("model.embed_tokens.", "language_model.model.embed_tokens."),
      ("model.layers.", "language_model.model.layers."), ("model.norm.", "language_model.model.norm."),
      ("lm_head.", "language_model.lm_head."), ("model.", ""))),
    ("DotsOCRForCausalLM KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."), ("model.", "language_model.model."))),
    ("Gemma3ForConditionalGeneration LlavaForConditionalGeneration PaliGemmaForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.vision_tower.", "vision_tower."),
      ("model.multi_modal_projector.", "multi_modal_projector."),
      ("lm_head.", "language_model.lm_head."))),
    ("InternS1ForConditionalGeneration InternVLForConditionalGeneration Lfm2VlForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."), ("model.language_model.", "language_model.model."),
      ("model.vision_tower.", "vision_tower."),
      ("model.multi_modal_projector.", "multi_modal_projector."))),
    ("ClefOmniForJointSchema Qwen3OmniMoeForConditionalGeneration",
     (("thinker.lm_head.", "language_model.lm_head."), ("thinker.model.", "language_model.model."),
      ("thinker.", ""), ("model.", "language_model.model."), ("lm_head.", "language_model.lm_head."))),
    ("LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.vision_tower.", "vision_tower."),
      ("model.multi_modal_projector.", "multi_modal_projector."),
      ("model.image_newline", "image_newline"), ("lm_head.", "language_model.lm_head."))),
    ("MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration",
     (("model.vision_tower.vit_merger.", "vit_merger."), ("model.vision_tower.", "vpm."),
      ("model.vpm.", "vpm."), ("model.vit_merger.", "vit_merger."), ("model.merger.", "merger."),
      ("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."))),
    ("MuseGlimmerForCausalLM MuseGlimmerForConditionalGeneration",
     (("model.language_model.", "model."), ("language_model.", "model."),
      ("model.vision_tower.patch_embedder.patch_embedding.", "model.vision_tower.conv1_linear."),
      ("model.vision_tower.", "vision_encoder."), ("vision_tower.", "vision_encoder."),
      ("model.vision_encoder.", "vision_encoder."),
      ("model.vision_adapter.fc1.", "model.vision_adapter.c_fc."),
      ("model.vision_adapter.fc2.", "model.vision_adapter.c_proj."),
      ("model.vision_adapter.", "vision_adapter."), ("model.vision_projection.", "vision_projection."),
      ("model.perception_emb_norm.", "perception_emb_norm."))),
    ("NemotronHForCausalLM NemotronHPuzzleForCausalLM",
     (("backbone", "model"),)),
    ("Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel",
     (("thinker.lm_head.", "language_model.lm_head."), ("thinker.model.", "language_model.model."),
      ("thinker.", ""))),
    ("Qwen3ASRForConditionalGeneration Qwen3ASRRealtimeGeneration",
     (("thinker.lm_head.", "language_model.lm_head."), ("thinker.model.", "language_model.model."),
      ("thinker.", ""), ("model.audio_tower.", "audio_tower."),
      ("model.language_model.", "language_model.model."),
      ("model.multi_modal_projector.linear_1.", "audio_tower.proj1."),
      ("model.multi_modal_projector.linear_2.", "audio_tower.proj2."))),
    ("ColPaliForRetrieval",
     (("vlm.vision_tower.", "vision_tower."), ("vlm.language_model.", "language_model."),
      ("vlm.multi_modal_projector.", "multi_modal_projector."), ("model.vision_tower.", "vision_tower."),
      ("model.language_model.", "language_model."),
      ("model.multi_modal_projector.", "multi_modal_projector."),
      ("lm_head.", "language_model.lm_head."))),
    ("ColQwen3_5",
     (("language_model.", "language_model.model."),)),
    ("Cosmos3ForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."),)),
    ("Ernie4_5_VLMoeForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."), ("model.", "language_model.model."),
      ("language_model.model.resampler_model.", "resampler_model."))),
    ("Gemma4ForConditionalGeneration",
     (("model.vision_tower", "vision_tower"), ("model.embed_vision", "embed_vision"),
      ("model.audio_tower.", "audio_tower."), ("model.embed_audio.", "embed_audio."),
      ("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
      ("model", "language_model.model"))),
    ("Gemma4UnifiedForConditionalGeneration",
     (("model.embed_audio.", "embed_audio."), ("model.embed_vision.", "embed_vision."),
      ("model.language_model.", "language_model.model."), ("model.vision_embedder.", "vision_embedder."),
      ("lm_head.", "language_model.lm_head."), ("model", "language_model.model"))),
    ("Granite4VisionForConditionalGeneration",
     (("model.language_model.", "language_model.model."),
      ("model.layerwise_projectors.", "layerwise_projectors."),
      ("model.spatial_projectors.", "spatial_projectors."), ("model.image_newline", "image_newline"),
      ("model.vision_tower.", "vision_tower."), ("lm_head.", "language_model.lm_head."))),
    ("InklingForCausalLM",
     (("model.llm.layers.", "model.layers."), ("model.llm.embed_norm", "model.embed_norm"),
      ("model.llm.embed", "model.embed_tokens"), ("model.llm.norm", "model.norm"),
      ("model.llm.unembed", "lm_head"), ("language_model.layers.", "model.layers."),
      ("language_model.lm_head.", "lm_head."))),
    ("InklingForConditionalGeneration",
     (("model.llm.layers.", "model.layers."), ("model.llm.embed_norm", "model.embed_norm"),
      ("model.llm.embed", "model.embed_tokens"), ("model.llm.norm", "model.norm"),
      ("model.llm.unembed", "lm_head"), ("language_model.layers.", "model.layers."),
      ("language_model.lm_head.", "lm_head."), ("model.audio.", "audio."),
      ("model.visual.", "visual.vision_encoder."))),
    ("IsaacForConditionalGeneration",
     (("lm_head.", "language_model.lm_head."), ("model.text_model.lm_head.", "language_model.lm_head."),
      ("model.text_model.", "language_model.model."),
      ("model.vision_embedding.0", "vision_embedding.transformer"),
      ("model.vision_embedding.1", "vision_embedding.linear_fc1"),
      ("model.vision_embedding.2", "vision_embedding.act"),
      ("model.vision_embedding.3", "vision_embedding.linear_fc2"),
      ("model.vision_embedding.", "vision_embedding."), ("model.lm_head.", "language_model.lm_head."),
      ("model.", "language_model.model."))),
    ("JinaEmbeddingsV5Model",
     (("", "model."),)),
    ("LightOnOCRForConditionalGeneration",
     (("model.vision_encoder.", "vision_tower."), ("model.vision_projection.", "multi_modal_projector."),
      ("lm_head.", "language_model.lm_head."), ("model.language_model.", "language_model.model."))),
    ("LlamaNemotronVLForSequenceClassification",
     (("model.", ""), ("language_model.layers.", "language_model.model.layers."),
      ("language_model.embed_tokens.", "language_model.model.embed_tokens."),
      ("language_model.norm.", "language_model.model.norm."),
      ("vision_model.encoder.", "vision_model.vision_model.encoder."),
      ("vision_model.embeddings.", "vision_model.vision_model.embeddings."),
      ("vision_model.post_layernorm.", "vision_model.vision_model.post_layernorm."))),
    ("LlamaNemotronVLModel",
     (("language_model.layers.", "language_model.model.layers."),
      ("language_model.embed_tokens.", "language_model.model.embed_tokens."),
      ("language_model.norm.", "language_model.model.norm."),
      ("vision_model.encoder.", "vision_model.vision_model.encoder."),
      ("vision_model.embeddings.", "vision_model.vision_model.embeddings."),
      ("vision_model.post_layernorm.", "vision_model.vision_model.post_layernorm."))),
    ("Mistral3ForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.vision_tower.", "vision_tower."),
      ("model.multi_modal_projector.", "multi_modal_projector."),
      ("lm_head.", "language_model.lm_head."), ("model.", "language_model.model."))),
    ("ModernBertModel",
     (("model.layers.", "encoder_layer.layers."), ("layers.", "encoder_layer.layers."), ("model.", ""))),
    ("Molmo2ForConditionalGeneration",
     (("model.vision_backbone.", "vision_backbone."), ("model.transformer.blocks.", "model.layers."),
      ("model.transformer.ln_f.", "model.norm."))),
    ("MolmoForCausalLM",
     (("model.vision_backbone.", "vision_backbone."), ("model.transformer.blocks.", "model.layers."),
      ("model.transformer.ln_f.", "model.norm."), ("model.transformer.mlp.down_proj.", "lm_head."))),
    ("MossAudioModel",
     (("lm_head.", "language_model.lm_head."),
      ("language_model.embed_tokens.", "language_model.model.embed_tokens."),
      ("language_model.layers.", "language_model.model.layers."),
      ("language_model.norm.", "language_model.model.norm."))),
    ("OpenCUAForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.visual.", "visual."),
      ("vision_tower.", "visual."), ("lm_head.", "language_model.lm_head."),
      ("model.", "language_model.model."))),
    ("Phi4MMForCausalLM",
     (("model.embed_tokens_extend.audio_embed.audio_projection.vision.",
       "embed_tokens_extend.audio_projection_for_vision."),
      ("model.embed_tokens_extend.audio_embed.audio_projection.speech.",
       "embed_tokens_extend.audio_projection."),
      ("model.embed_tokens_extend.audio_embed.", "embed_tokens_extend."),
      ("model.embed_tokens_extend.image_embed.", "vision_encoder."))),
    ("PixtralForConditionalGeneration",
     (("model.language_model.", "language_model.model."), ("model.vision_tower.", "vision_encoder."),
      ("model.multi_modal_projector.", "vision_language_adapter."))),
    ("Qwen3ASRForcedAlignerForTokenClassification",
     (("thinker.lm_head.", "classifier."), ("thinker.model.", "language_model.model."), ("thinker.", ""))),
    ("TeleChat2ForCausalLM",
     (("transformer.", "model."),)),
    ("UltravoxModel",
     (("audio_tower.model.encoder.", "audio_tower."),)),
)
# fmt: on
RENAMED: Mapping[str, _Prefixes] = {name: prefixes for names, prefixes in _GROUPS for name in names.split()}
"""By class, beginnings of names with what vLLM replaces them by, one after another. Where a class replaces
other parts of names too, that is not listed: it does so in the base's names and in the adapter's alike."""


_WITHOUT_MODEL = (("layers.", "model.layers."), ("embed_tokens", "model.embed_tokens"))
_TRANSFORMERS = """
    ArceeForCausalLM CwmForCausalLM GlmForCausalLM HunYuanDenseV1ForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM
    OlmoForCausalLM PhiForCausalLM SeedOssForCausalLM SmolLM3ForCausalLM Starcoder2ForCausalLM
    VaultGemmaForCausalLM
"""
RENAMED_PREFIXES: Mapping[str, _Prefixes] = {
    "OPTForCausalLM": (("decoder.", "model.decoder."),),
    **dict.fromkeys(_TRANSFORMERS.split(), _WITHOUT_MODEL),
}
"""By class, beginnings that vLLM completes: it also serves an adapter whose names lack them, which PEFT would
drop (`hf_to_vllm_mapper`; for models that transformers implements: `_create_hf_to_vllm_mapper` in
`models/transformers/base.py`).
"""


def reader_for(base: BaseRecord) -> NameReader:
    """How vLLM reads the names of an adapter for this base."""
    renamed = RENAMED_PREFIXES.get(architecture(base), ())

    def read(name: str) -> str | None:
        path = leading_prefixes(name)
        for old, new in renamed:
            if path and path.startswith(old):
                return new + path.removeprefix(old)
        return path

    return read


def names_in_vllm(base: BaseRecord) -> Callable[[str], str]:
    """A function from a module's path, in the base's files or in an adapter, to its path in vLLM."""
    prefixes = RENAMED.get(architecture(base), ())

    def renamed(path: str) -> str:
        path = f"{path}."
        for old, new in prefixes:
            if path.startswith(old):
                path = new + path.removeprefix(old)
        return path.removesuffix(".")

    return renamed


def architecture(base: BaseRecord | None) -> str:
    """The class that the base's config names; empty if it is unknown."""
    (name, *_) = (base.facts.get("architectures") if base else None) or ("",)
    return str(name)
