"""Which modules of a multimodal base vLLM applies an adapter to, by the base's architecture: those of its
language model, and those of the towers and connectors if the server has `--enable-tower-connector-lora` and
the class supports it. vLLM loads an adapter of other modules too, and ignores them.

Read from the classes themselves in vLLM 0.32 (`get_mm_mapping`, `supports_tower_connector_lora`), except
Gemma 4's, which needs a model; a test compares the others. Names are vLLM's (`vllm_names`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.vllm_names import architecture, names_in_vllm

TOWERS = "enable_tower_connector_lora"
"""The server's option."""


class Parts(NamedTuple):
    """Beginnings of names: the language model's, and those of towers and connectors (none, if the class does
    not support adapters of them)."""

    language: str
    towers: tuple[str, ...]


_GROUPS: Iterable[tuple[str, Parts]] = (
    (
        "CohereCompassForConditionalGeneration DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM "
        "Eagle2_5_VLForConditionalGeneration Granite4VisionForConditionalGeneration "
        "GraniteSpeechForConditionalGeneration GraniteSpeechPlusForConditionalGeneration "
        "InternS1ForConditionalGeneration InternVLForConditionalGeneration IsaacForConditionalGeneration "
        "LightOnOCRForConditionalGeneration LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel "
        "Llama_Nemotron_Nano_VL MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration "
        "Mistral3ForConditionalGeneration NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 "
        "NemotronH_Omni_Reasoning_V3 NemotronH_Super_Omni_Reasoning_V3 "
        "OpenPanguVLForConditionalGeneration Qwen2_5OmniForConditionalGeneration Qwen2_5OmniModel "
        "UnlimitedOCRForCausalLM VoxtralForConditionalGeneration VoxtralRealtimeGeneration",
        Parts("language_model", ()),
    ),
    (
        "ColQwen3 ColQwen3_5 Cosmos3ForConditionalGeneration InternS1ProForConditionalGeneration "
        "InternS2MobiusForConditionalGeneration InternS2PreviewForConditionalGeneration OpsColQwen3Model "
        "Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration Qwen3VLNemotronEmbedModel "
        "Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration "
        "Qwen4ExpForConditionalGeneration",
        Parts("language_model", ("visual.", "visual.merger", "visual.deepstack_merger_list")),
    ),
    (
        "ColPaliForRetrieval Gemma3ForConditionalGeneration Lfm2VlForConditionalGeneration "
        "LlavaForConditionalGeneration LlavaNextForConditionalGeneration "
        "LlavaNextVideoForConditionalGeneration PaliGemmaForConditionalGeneration",
        Parts("language_model", ("vision_tower", "multi_modal_projector")),
    ),
    (
        "Exaone4_5_ForConditionalGeneration JinaVLForRanking OpenCUAForConditionalGeneration "
        "Qwen2VLForConditionalGeneration Qwen2_5_VLForConditionalGeneration",
        Parts("language_model", ("visual.", "visual.merger.")),
    ),
    (
        "Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration Glm5NextForConditionalGeneration "
        "GlmOcrForConditionalGeneration",
        Parts("language_model.model", ("visual.", "visual.merger.")),
    ),
    (
        "H2OVLChatModel InternVLChatModel NVLM_D QianfanOCRForConditionalGeneration",
        Parts("language_model", ("vision_model", "mlp1")),
    ),
    (
        "Molmo2ForConditionalGeneration MolmoForCausalLM MuseGlimmerForCausalLM "
        "MuseGlimmerForConditionalGeneration",
        Parts("model", ()),
    ),
    (
        "AudioFlamingo3ForConditionalGeneration GlmAsrForConditionalGeneration MossAudioModel",
        Parts("language_model.", ()),
    ),
    (
        "Qwen3ASRForConditionalGeneration Qwen3ASRForcedAlignerForTokenClassification "
        "Qwen3ASRRealtimeGeneration",
        Parts("language_model", ("audio_tower.",)),
    ),
    (
        "ClefOmniForJointSchema Qwen3OmniMoeForConditionalGeneration",
        Parts("language_model", ("visual.", "audio_tower.", "visual.merger")),
    ),
    (
        "Idefics3ForConditionalGeneration SmolVLMForConditionalGeneration",
        Parts("model.text_model", ("model.vision_model", "model.connector")),
    ),
    (
        "KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration",
        Parts("language_model", ("visual.", "mlp_AR.")),
    ),
    (
        "MiniCPMO MiniCPMV",
        Parts("llm", ()),
    ),
    (
        "Blip2ForConditionalGeneration",
        Parts("language_model", ("vision_model", "qformer", "language_projection")),
    ),
    (
        "DotsOCRForCausalLM",
        Parts("language_model", ("vision_tower.", "vision_tower.merger")),
    ),
    (
        "GLM4VForCausalLM",
        Parts("transformer.encoder", ()),
    ),
    (
        "Gemma4ForConditionalGeneration",
        Parts("language_model", ("vision_tower", "audio_tower", "embed_vision", "embed_audio")),
    ),
    (
        "Llama4ForConditionalGeneration",
        Parts("language_model", ("vision_model.", "multi_modal_projector.", "vision_model.vision_adapter.")),
    ),
    (
        "Phi4MMForCausalLM",
        Parts("model.", ()),
    ),
    (
        "PixtralForConditionalGeneration",
        Parts("language_model.", ("vision_encoder", "vision_language_adapter.")),
    ),
    (
        "UltravoxModel",
        Parts("language_model.", ("audio_tower.", "multi_modal_projector.")),
    ),
)
PARTS: Mapping[str, Parts] = {name: parts for names, parts in _GROUPS for name in names.split()}


def ignored(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules outside the language model that the server ignores, whatever its options."""
    return _outside(subject, are_supported=False)


def outside_language_model(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Modules outside the language model that the server applies only with its option."""
    return _outside(subject, are_supported=True)


def unless_enabled(condition: Condition) -> Condition:
    """The condition, unless the server has the option."""
    return lambda subject, runtime: (
        None if runtime.options.get(TOWERS) == "true" else condition(subject, runtime)
    )


def _outside(subject: CheckSubject, *, are_supported: bool) -> ConditionMatch | None:
    name = architecture(subject.base)
    if subject.base is None or name not in PARTS:
        return None
    parts, in_vllm = PARTS[name], names_in_vllm(subject.base)
    paths = [
        module.path
        for module in subject.spec.modules
        if not (own := f"{in_vllm(module.path)}.").startswith(parts.language)
        and own.startswith(parts.towers) is are_supported
    ]
    if not paths:
        return None
    return ConditionMatch(
        f"{shorten_names(fold_layer_numbers(paths))}: outside the language model of {name}", tuple(paths)
    )
