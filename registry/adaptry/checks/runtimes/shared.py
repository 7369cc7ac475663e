"""Rules that several engines have in common: one condition, with each engine's own effect and source."""

from __future__ import annotations

from adaptry.adapters.key_layout import EXPERTS_FUSED
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import repairs
from adaptry.checks.runtimes.rule import Effect, RuntimeRule

_STARTS_FROM_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_VARIANTS = {
    "alora": "it is an aLoRA, which acts only after its invocation tokens",
    "qalora": "it is a QA-LoRA, which belongs to one quantised base",
    "bdlora": "it is a BD-LoRA, whose factors are in blocks",
    "arrow": "it is an Arrow router",
    "layer_replication": "it is for a model whose layers are repeated (layer_replication)",
}


def peft_files(source: str) -> RuntimeRule:
    return RuntimeRule(
        "files_of_another_tool",
        "refuses",
        "files that are not PEFT's",
        when.other_files("peft"),
        repairs.TO_PEFT,
        source,
    )


def only_lora(source: str) -> RuntimeRule:
    return RuntimeRule(
        "method_unknown",
        "refuses",
        "a method other than LoRA",
        when.method_beyond("lora"),
        repairs.AS_LORA,
        source,
    )


def dora(effect: Effect, source: str) -> RuntimeRule:
    found = when.trait("dora", "it is a DoRA, whose magnitudes scale the base's own weights")
    return RuntimeRule("dora", effect, "DoRA", found, repairs.AS_LORA, source)


def trained_biases(effect: Effect, source: str) -> RuntimeRule:
    """Biases of the base or of `lora_B` in the file; what the config's `bias` lists is `listed_bias`."""
    return RuntimeRule(
        "biases", effect, "biases in its file", when.has_biases, repairs.LEAVE_OUT_BIAS, source
    )


def saved_modules(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "saved_modules",
        effect,
        "whole modules (`modules_to_save`) or embeddings",
        when.replaced,
        repairs.LEAVE_OUT,
        source,
    )


def copied_embeddings(source: str) -> RuntimeRule:
    title = "a copy of an embedding beside its update"
    return RuntimeRule("copied_embeddings", "needs", title, when.copied, repairs.DROP_COPIES, source)


def token_rows(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "token_rows",
        effect,
        "rows of an embedding (`trainable_token_indices`)",
        when.extras("token_rows"),
        repairs.MERGE,
        source,
    )


def unmatched(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "tensors_unmatched",
        effect,
        "tensors that are no factors",
        when.other_tensors,
        repairs.SPELL,
        source,
    )


def wrapped_names(effect: Effect, source: str) -> RuntimeRule:
    """For engines that look modules up by their whole names."""
    title = "names with what torch.compile, FSDP or checkpointing put inside (`_orig_mod` and the like)"
    return RuntimeRule("names_wrapped", effect, title, when.wrapped, repairs.SPELL, source)


def inner_names(effect: Effect, source: str) -> RuntimeRule:
    title = "an adapter's name inside its names (`lora_A.default.weight`)"
    return RuntimeRule("names_inner", effect, title, when.named_inside, repairs.SPELL, source)


def listed_bias(source: str) -> RuntimeRule:
    return RuntimeRule(
        "bias_listed",
        "refuses",
        "`bias` other than `none` in the config, where the file has no biases",
        when.lists_bias,
        repairs.NO_BIAS_LISTED,
        source,
    )


def variants(effect: Effect, source: str, but: tuple[str, ...] = ()) -> RuntimeRule:
    sentences = {name: text for name, text in _VARIANTS.items() if name not in but}
    title = "aLoRA, QA-LoRA, BD-LoRA, Arrow, `layer_replication`"
    return RuntimeRule("variant", effect, title, when.traits(sentences), repairs.ONE_RUNTIME, source)


def starts_from_base(effect: Effect, source: str) -> RuntimeRule:
    title = "an initialisation that takes part of the base out (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)"
    return RuntimeRule(
        "initialisation", effect, title, when.initialised(*_STARTS_FROM_BASE), repairs.WITHOUT_START, source
    )


def embeddings(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "embeddings", effect, "an update of an embedding", when.kinds("embedding"), repairs.MERGE, source
    )


def odd_layers(effect: Effect, source: str) -> RuntimeRule:
    title = "updates of convolutions, of fused attention or of norms"
    return RuntimeRule(
        "module_kind", effect, title, when.kinds("conv", "attention", "norm", "flat"), repairs.MERGE, source
    )


def fused_experts(effect: Effect, source: str, repair: str = repairs.MERGE) -> RuntimeRule:
    title = "updates of parameters (`target_parameters`)"
    return RuntimeRule("experts", effect, title, when.kinds("parameter"), repair, source)


def scale(found: when.Scale, title: str, source: str, repair: str = repairs.FOLD) -> RuntimeRule:
    return RuntimeRule("scale", "changes", title, when.other_scale(found), repair, source)


def transposed(effect: Effect, source: str) -> RuntimeRule:
    found = when.trait(
        "fan_in_fan_out", "fan_in_fan_out is set: the base has its weights the other way round (GPT-2)"
    )
    return RuntimeRule("fan_in_fan_out", effect, "`fan_in_fan_out`", found, repairs.PLAIN_SIDES, source)


def turned_experts(source: str) -> RuntimeRule:
    """An older PEFT has fused experts as [in, out], whatever the model; loaders take them for [out, in]."""
    found = when.written_before((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused"))
    return RuntimeRule(
        "experts_turned", "changes", "fused experts that PEFT before 0.19 wrote", found, repairs.MERGE, source
    )


def needs_whole_config(source: str) -> RuntimeRule:
    return RuntimeRule(
        "config_incomplete",
        "refuses",
        "no `r`, `lora_alpha` or `target_modules` in the config",
        when.field_missing("r", "lora_alpha", "target_modules"),
        repairs.SAVE_AGAIN,
        source,
    )


def refuses_embeddings(source: str) -> RuntimeRule:
    return RuntimeRule(
        "embeddings",
        "refuses",
        "updates of embeddings or of `lm_head`",
        when.targets_in(frozenset(["lm_head", "embed_tokens"])),
        repairs.MERGE,
        source,
    )
