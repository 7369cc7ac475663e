"""The bases that llama.cpp's converter knows, by their classes in transformers and by how they are quantised.

The classes are from its own table (`conversion/__init__.py · TEXT_MODEL_MAP`), without multimodal models,
whose class it takes from another part of the config; a test compares them.
"""

from __future__ import annotations

from adaptry.checks.runtimes.rule import CheckSubject, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.vllm_names import architecture

_UNKNOWN_METHODS = ("bitsandbytes", "awq")
_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")
_NAMES = """
    AfmoeForCausalLM ApertusForCausalLM ArceeForCausalLM ArcticForCausalLM BaiChuanForCausalLM
    BaichuanForCausalLM BailingMoeForCausalLM BailingMoeV2ForCausalLM BailingMoeV3ForCausalLM
    BambaForCausalLM BitNetForCausalLM BitnetForCausalLM BloomForCausalLM ChameleonForCausalLM
    CodeShellForCausalLM CogVLMForCausalLM Cohere2ForCausalLM Cohere2MoeForCausalLM CohereForCausalLM
    DbrxForCausalLM DeciLMForCausalLM DeepseekForCausalLM DeepseekOCRForCausalLM DeepseekV2ForCausalLM
    DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM Dots1ForCausalLM
    Dots3NoteForCausalLM Dots3NoteTextForCausalLM DotsOCRForCausalLM Eagle3LlamaForCausalLM
    Ernie4_5ForCausalLM Ernie4_5_ForCausalLM Ernie4_5_MoeForCausalLM Exaone4ForCausalLM ExaoneForCausalLM
    ExaoneMoEForCausalLM ExaoneMoeForCausalLM FalconForCausalLM FalconH1ForCausalLM FalconMambaForCausalLM
    GPT2LMHeadModel GPTBigCodeForCausalLM GPTNeoXForCausalLM GPTRefactForCausalLM Gemma2ForCausalLM
    Gemma3ForCausalLM Gemma3nForCausalLM Gemma4AssistantForCausalLM Gemma4ForCausalLM
    Gemma4UnifiedAssistantForCausalLM GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM
    Glm4MoeLiteForCausalLM GlmForCausalLM GlmMoeDsaForCausalLM GptOssForCausalLM GraniteForCausalLM
    GraniteMoeForCausalLM GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM
    GraniteSWAForCausalLM GraniteSwitchForCausalLM Grok1ForCausalLM GrokForCausalLM GroveMoeForCausalLM
    HYV3ForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM IQuestCoderForCausalLM
    InternLM2ForCausalLM InternLM3ForCausalLM JAISLMHeadModel Jais2ForCausalLM JambaForCausalLM
    KORMoForCausalLM KimiLinearForCausalLM LFM2ForCausalLM LLaMAForCausalLM LagunaForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM LlamaForCausalLM LlavaStableLMEpochForCausalLM
    MPTForCausalLM MaincoderForCausalLM Mamba2ForCausalLM MambaForCausalLM MambaLMHeadModel
    MellumForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiniCPM3ForCausalLM MiniCPMForCausalLM
    MiniMaxM1ForCausalLM MiniMaxM2ForCausalLM MiniMaxM3SparseForCausalLM MiniMaxText01ForCausalLM
    Ministral3ForCausalLM MistralForCausalLM MixtralForCausalLM NanbeigeForCausalLM NemotronForCausalLM
    NemotronHForCausalLM OLMoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM
    OlmoeForCausalLM OpenELMForCausalLM OrionForCausalLM PLMForCausalLM PLaMo2ForCausalLM
    PLaMo3ForCausalLM PanguEmbeddedForCausalLM Phi3ForCausalLM PhiForCausalLM PhiMoEForCausalLM
    Plamo2ForCausalLM Plamo3ForCausalLM PlamoForCausalLM QWenLMHeadModel Qwen2ForCausalLM
    Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3_5ForCausalLM
    Qwen3_5MoeForCausalLM RWForCausalLM RWKV6Qwen2ForCausalLM RWKV7ForCausalLM RuGPT3XLForCausalLM
    Rwkv6ForCausalLM Rwkv7ForCausalLM RwkvHybridForCausalLM Sarashina2VisionForCausalLM
    SarvamMoEForCausalLM SeedOssForCausalLM SmallThinkerForCausalLM SmolLM3ForCausalLM
    SolarOpenForCausalLM StableLMEpochForCausalLM StableLmForCausalLM Starcoder2ForCausalLM
    Step3p5ForCausalLM T5WithLMHeadModel TalkieForCausalLM UnlimitedOCRForCausalLM VLlama3ForCausalLM
    XverseForCausalLM YoutuForCausalLM modeling_grove_moe.GroveMoeForCausalLM
    modeling_sarvam_moe.SarvamMoEForCausalLM
"""
KNOWN_CLASSES = frozenset(_NAMES.split())


def class_unknown(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A language model of a class that the converter does not know. Needs the base."""
    name = architecture(subject.base)
    if not name.endswith(_LANGUAGE_MODELS) or name in KNOWN_CLASSES:
        return None
    return ConditionMatch(f"its converter does not know {name}")


def quantised_beyond(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A base quantised by a method that the converter does not know. Needs the base."""
    found = str(subject.base.facts.get("quantization")) if subject.base else ""
    return ConditionMatch(f"its base is quantised ({found})") if found.startswith(_UNKNOWN_METHODS) else None
