"""The features that vLLM's model classes support, by the base's architecture: adapters at all
(`SupportsLoRA`), and updates of the embedding table and the output head (`embedding_modules`).

Read from the classes themselves in vLLM 0.32. If an architecture has no entry here, vLLM has no class for it,
or the class could not be imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adaptry.checks.finding_text import fold_layer_numbers, shorten_names
from adaptry.checks.runtimes.conditions import last_name
from adaptry.checks.runtimes.rule import CheckSubject, Condition, ConditionMatch
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.vllm_names import architecture


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_BOTH = _names("""
    ApertusForCausalLM DeciLMForCausalLM Ernie4_5ForCausalLM Exaone4ForCausalLM ExaoneMoEForCausalLM
    ExaoneMoeForCausalLM FalconH1ForCausalLM GraniteForCausalLM GraniteMoeForCausalLM
    GraniteMoeHybridForCausalLM GraniteMoeSWAForCausalLM GraniteMoeSharedForCausalLM GraniteSWAForCausalLM
    HyperCLOVAXForCausalLM IQuestCoderForCausalLM InternLM3ForCausalLM JambaForCausalLM
    JambaForSequenceClassification JinaEmbeddingsV5Model K2HorizonForCausalLM LLaMAForCausalLM
    Lfm2ForCausalLM Lfm2MoeForCausalLM Llama4ForCausalLM LlamaBidirectionalForSequenceClassification
    LlamaBidirectionalModel LlamaForCausalLM LlamaModel MiniCPM3ForCausalLM MiniCPMForCausalLM MistralModel
    MixtralForCausalLM MossAudioModel NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 NemotronH_Omni_Reasoning_V3
    NemotronH_Super_Omni_Reasoning_V3 Param2MoEForCausalLM Phi3ForCausalLM PhiMoEForCausalLM
    Qwen3ForCausalLM Qwen3MoeForCausalLM Qwen3_5ForCausalLM Qwen3_5MoeForCausalLM SolarForCausalLM
    TeleChat2ForCausalLM TeleChat3ForCausalLM TeleFLMForCausalLM
""")
"""Update `embed_tokens` and `lm_head`."""
_TABLE = _names("""
    ArceeForCausalLM Cohere2ForCausalLM CohereForCausalLM CwmForCausalLM Emu3ForConditionalGeneration
    FlexOlmoForCausalLM GPTBigCodeForCausalLM GPTNeoXForCausalLM GlmForCausalLM HunYuanDenseV1ForCausalLM
    HunYuanMoEV1ForCausalLM HunYuanVLForConditionalGeneration Jais2ForCausalLM MellumForCausalLM
    NanbeigeForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoForCausalLM PhiForCausalLM SeedOssForCausalLM
    SmolLM3ForCausalLM Starcoder2ForCausalLM VaultGemmaForCausalLM VibeVoiceAsrForConditionalGeneration
""")
"""Update `embed_tokens` only."""
_NEITHER = _names("""
    AXK1ForCausalLM AfmoeForCausalLM AudioFlamingo3ForConditionalGeneration BagelForConditionalGeneration
    BailingMoeForCausalLM BailingMoeV2ForCausalLM BertModel BertSpladeSparseEmbeddingModel
    BgeM3EmbeddingModel Blip2ForConditionalGeneration ChatGLMForConditionalGeneration ChatGLMModel
    ClefOmniForJointSchema CohereCompassForConditionalGeneration ColPaliForRetrieval ColQwen3 ColQwen3_5
    Cosmos3ForConditionalGeneration DeepseekForCausalLM DeepseekOCR2ForCausalLM DeepseekOCRForCausalLM
    DeepseekV2ForCausalLM DeepseekV32ForCausalLM DeepseekV3BidirectionalModel DeepseekV3ForCausalLM
    DotsOCRForCausalLM Ernie4_5_MoeForCausalLM Ernie4_5_VLMoeForConditionalGeneration
    Exaone4_5_ForConditionalGeneration GLM4VForCausalLM Gemma2ForCausalLM Gemma2Model Gemma3ForCausalLM
    Gemma3ForConditionalGeneration Gemma4ForCausalLM Gemma4ForConditionalGeneration
    Gemma4UnifiedForConditionalGeneration GemmaForCausalLM Glm4ForCausalLM Glm4MoeForCausalLM
    Glm4MoeLiteForCausalLM Glm4vForConditionalGeneration Glm4vMoeForConditionalGeneration
    Glm5NextForConditionalGeneration GlmAsrForConditionalGeneration GlmMoeDsaForCausalLM
    GlmOcrForConditionalGeneration GptOssForCausalLM Granite4VisionForConditionalGeneration
    GraniteSpeechForConditionalGeneration GraniteSpeechPlusForConditionalGeneration H2OVLChatModel
    HF_ColBERT HYV3ForCausalLM HYV4ForCausalLM Idefics3ForConditionalGeneration InternLM2ForCausalLM
    InternLM2ForRewardModel InternS1ForConditionalGeneration InternS1ProForConditionalGeneration
    InternS2MobiusForConditionalGeneration InternS2PreviewForConditionalGeneration InternVLChatModel
    InternVLForConditionalGeneration IsaacForConditionalGeneration JinaVLForRanking
    KeyeForConditionalGeneration KeyeVL1_5ForConditionalGeneration LagunaForCausalLM
    Lfm2VlForConditionalGeneration LightOnOCRForConditionalGeneration Llama4ForConditionalGeneration
    LlamaNemotronVLForSequenceClassification LlamaNemotronVLModel Llama_Nemotron_Nano_VL
    LlavaForConditionalGeneration LlavaNextForConditionalGeneration LlavaNextVideoForConditionalGeneration
    LongcatFlashForCausalLM LongcatFlashNgramForCausalLM MiMoForCausalLM MiniCPMO MiniCPMV
    MiniCPMV4_6ForConditionalGeneration MiniCPMV4_7ForConditionalGeneration MiniMaxM2ForCausalLM
    Ministral3ForCausalLM Mistral3ForConditionalGeneration MistralForCausalLM MistralLarge3ForCausalLM
    ModernBertModel Molmo2ForConditionalGeneration MolmoForCausalLM MuseGlimmerForCausalLM
    MuseGlimmerForConditionalGeneration NVLM_D OPTForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM
    OpenCUAForConditionalGeneration OpenPanguVLForConditionalGeneration OpsColQwen3Model
    PaliGemmaForConditionalGeneration PanguEmbeddedForCausalLM PanguProMoEV2ForCausalLM
    PanguUltraMoEForCausalLM Phi4MMForCausalLM PixtralForConditionalGeneration Plamo3ForCausalLM
    QianfanOCRForConditionalGeneration Qwen2ForCausalLM Qwen2ForProcessRewardModel Qwen2ForRewardModel
    Qwen2Model Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration Qwen2_5OmniForConditionalGeneration
    Qwen2_5OmniModel Qwen2_5_VLForConditionalGeneration Qwen3ASRForConditionalGeneration
    Qwen3ASRForcedAlignerForTokenClassification Qwen3ASRRealtimeGeneration Qwen3NextForCausalLM
    Qwen3OmniMoeForConditionalGeneration Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration
    Qwen3VLNemotronEmbedModel Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration
    Qwen4ExpForCausalLM Qwen4ExpForConditionalGeneration Rnj1ForCausalLM RobertaForMaskedLM
    RobertaForSequenceClassification RobertaModel SarvamMLAForCausalLM SarvamMoEForCausalLM
    SmolVLMForConditionalGeneration UltravoxModel UnlimitedOCRForCausalLM VoxtralForConditionalGeneration
    VoxtralRealtimeGeneration VoyageQwen3BidirectionalEmbedModel WhisperForConditionalGeneration
    XLMRobertaForSequenceClassification XLMRobertaModel
""")
"""Update neither."""
WITHOUT_ADAPTERS = _names("""
    AriaForConditionalGeneration BailingMoeV2_5ForCausalLM BailingMoeV3ForCausalLM
    BailingMoeV3VLForConditionalGeneration BeeForConditionalGeneration BertForMaskedLM
    BertForSequenceClassification BertForTokenClassification BloomForCausalLM CLIPModel
    Cohere2MoeForCausalLM Cohere2VisionForConditionalGeneration ColBERTJinaRobertaModel ColBERTLfm2Model
    ColBERTModernBertModel ColModernVBertForRetrieval Cosmos3EdgeForConditionalGeneration DbrxForCausalLM
    DeepseekV41ForCausalLM DeepseekV4ForCausalLM DeepseekV4ForConditionalGeneration DeepseekVLV2ForCausalLM
    DiffusionGemmaForBlockDiffusion EmbeddingGemma2Model FalconForCausalLM FalconMambaForCausalLM
    FireRedASR2ForConditionalGeneration FunAudioChatForConditionalGeneration GPT2ForSequenceClassification
    GPT2LMHeadModel GPTJForCausalLM Gemma3TextModel Gemma3nForCausalLM Gemma3nForConditionalGeneration
    Glm5NextForCausalLM GteModel GteNewForSequenceClassification GteNewModel HCXVisionV2ForCausalLM
    HfMoondream HrmTextForCausalLM IQuestLoopCoderForCausalLM JinaForRanking KimiK25ForConditionalGeneration
    KimiK3ForConditionalGeneration KimiLinearForCausalLM KimiVLForConditionalGeneration
    LlavaOnevision2ForConditionalGeneration LlavaOnevisionForConditionalGeneration Mamba2ForCausalLM
    MambaForCausalLM MiMoV2FlashForCausalLM MiMoV2ForCausalLM MiMoV2OmniForCausalLM
    MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration ModernBertForSequenceClassification
    ModernBertForTokenClassification Moondream3ForCausalLM MoonshotKimiaForCausalLM
    MossTranscribeDiarizeForConditionalGeneration NemotronParseForConditionalGeneration NomicBertModel
    OpenAIPrivacyFilterForTokenClassification OpenVLAForActionPrediction OrionForCausalLM Ovis Ovis2_5
    Ovis2_6ForCausalLM Ovis2_6_MoeForCausalLM PaddleOCRVLForConditionalGeneration Phi3VForCausalLM
    Phi4ForCausalLMV Qwen2AudioForConditionalGeneration RForConditionalGeneration
    RobertaForTokenClassification SiglipModel SkyworkR1VChatModel StableLmForCausalLM Step1ForCausalLM
    Step3TextForCausalLM Step3VLForConditionalGeneration Step3p5ForCausalLM Step3p7ForConditionalGeneration
    StepVLForConditionalGeneration XLMRobertaForTokenClassification Zamba2ForCausalLM
""")
"""Take no adapters: vLLM does not start with `--enable-lora`."""

EMBEDDING_MODULES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(_BOTH, frozenset({"embed_tokens", "lm_head"})),
    **dict.fromkeys(_TABLE, frozenset({"embed_tokens"})),
    **dict.fromkeys(_NEITHER, frozenset()),
    "ExaoneForCausalLM": frozenset({"wte", "lm_head"}),
}
"""By class, the modules besides linear layers that an adapter may update. A test compares both tables."""

SPLIT_MODULES: Mapping[str, frozenset[str]] = {"Glm4ForCausalLM": frozenset({"gate_up_proj"})}
"""By class, modules of the base that vLLM knows in adapters only as several (`packed_modules_mapping`). Other
classes split no module that their models in transformers have as one. A test compares them."""
UNAPPLIED_MODULES: Mapping[str, frozenset[str]] = {"GPTBigCodeForCausalLM": frozenset({"c_attn"})}
"""By class, modules whose updates vLLM loads and does not apply."""


def takes_no_adapters(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """A base whose class in vLLM takes no adapters. Needs the base."""
    name = architecture(subject.base)
    return ConditionMatch(f"its class {name} takes no adapters") if name in WITHOUT_ADAPTERS else None


def split_modules(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of modules that the base's class accepts only as several separate modules. Needs the base."""
    return _of_class(subject, SPLIT_MODULES)


def unapplied_modules(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of modules that the base's class does not apply. Needs the base."""
    return _of_class(subject, UNAPPLIED_MODULES)


def _of_class(subject: CheckSubject, names: Mapping[str, frozenset[str]]) -> ConditionMatch | None:
    name = architecture(subject.base)
    own = names.get(name, frozenset())
    paths = [module.path for module in subject.spec.modules if last_name(module.path) in own]
    if not paths:
        return None
    return ConditionMatch(f"{shorten_names(fold_layer_numbers(paths))} of its class {name}", tuple(paths))


def unlisted_embeddings(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of an embedding or of the output head that the base's class does not list. Needs the base."""
    name = architecture(subject.base)
    if name not in EMBEDDING_MODULES:
        return None
    paths = [path for path in _embeddings(subject) if last_name(path) not in EMBEDDING_MODULES[name]]
    if not paths:
        return None
    return ConditionMatch(
        f"its class {name} does not list {shorten_names(fold_layer_numbers(paths))}", tuple(paths)
    )


def unknown_embeddings(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
    """Updates of an embedding in a base whose class is unknown."""
    if architecture(subject.base) in {*EMBEDDING_MODULES, *WITHOUT_ADAPTERS}:
        return None
    paths = [module.path for module in subject.spec.modules if module.kind == "embedding"]
    if not paths:
        return None
    return ConditionMatch(f"it changes {shorten_names(fold_layer_numbers(paths))}", tuple(paths))


def except_tied_head(condition: Condition) -> Condition:
    """The condition, unless it concerns only an output head that the base's class creates from the embedding
    table. Such a head has no tensor of its own in the base's files."""

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        match, base = condition(subject, runtime), subject.base
        is_tied = base is not None and base.facts.get("tie_word_embeddings") is True
        is_made = is_tied and "lm_head" in EMBEDDING_MODULES.get(architecture(base), ())
        return None if match and is_made and set(match.modules) == {"lm_head"} else match

    return found


def _embeddings(subject: CheckSubject) -> Sequence[str]:
    return [
        module.path
        for module in subject.spec.modules
        if module.kind == "embedding" or last_name(module.path) == "lm_head"
    ]
