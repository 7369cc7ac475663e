"""Rules that several engines share: a common condition, with the effect and source for each engine."""

from __future__ import annotations

from adaptry.adapters.key_layout import EXPERTS_FUSED
from adaptry.checks.base.copied_weights import Likeness
from adaptry.checks.runtimes import conditions as when
from adaptry.checks.runtimes import (
    embedding_copies,
    field_conditions,
    name_conditions,
    repairs,
    shape_conditions,
)
from adaptry.checks.runtimes.rule import CheckSubject, ConditionMatch, Effect, RuntimeRule
from adaptry.checks.runtimes.runtime import Runtime

_STARTS_FROM_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_VARIANTS = {
    "alora": "it is an aLoRA, which acts only after its invocation tokens",
    "qalora": "it is a QA-LoRA, which belongs to one quantised base",
    "bdlora": "it is a BD-LoRA, whose factors are in blocks",
    "arrow": "it is an Arrow router",
    "layer_replication": "it is for a model with repeated layers (layer_replication)",
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


def other_method(source: str) -> tuple[RuntimeRule, ...]:
    """A rule for engines that do not read `peft_type`."""
    return (
        RuntimeRule(
            "method_ignored",
            "needs",
            "LoRA's factors under another known `peft_type`, which it does not read",
            name_conditions.other_method,
            repairs.SET_LORA,
            source,
        ),
        RuntimeRule(
            "method_ignored",
            "changes",
            "LoRA's factors under an unknown `peft_type`, which it does not read",
            name_conditions.unknown_method,
            repairs.UNKNOWN_METHOD,
            source,
        ),
    )


def prefix(source: str) -> RuntimeRule:
    return RuntimeRule(
        "prefix",
        "needs",
        "factors with names that it accepts and PEFT drops",
        name_conditions.other_prefix,
        repairs.SPELL,
        source,
    )


def factor_shapes(source: str, *, rank: bool = True) -> tuple[RuntimeRule, ...]:
    """A rule for engines that refuse factors that do not fit each other, the base or (with `rank`) the
    config.
    """
    rules = (
        ("factors_differ", "factors of a module with different ranks", shape_conditions.factor_ranks_differ),
        ("shapes", "factors whose sizes differ from the base's weights", shape_conditions.unlike_base),
        (
            "rank_undeclared",
            "factors whose rank differs from `r` and `rank_pattern`",
            shape_conditions.rank_undeclared,
        ),
    )
    return tuple(
        RuntimeRule(code, "refuses", title, found, repairs.OTHER_BASE, source)
        for code, title, found in (rules if rank else rules[:2])
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


def dora(effect: Effect, source: str, *, by_file: bool = False) -> RuntimeRule:
    """The rule about DoRA. `by_file`: for engines that look at the tensors, not at `use_dora`."""
    by_trait = when.trait("dora", "it is a DoRA, whose magnitudes scale the base's weights")
    title = "DoRA's magnitudes in its file" if by_file else "DoRA"
    found = when.magnitudes_in_file if by_file else by_trait
    return RuntimeRule("dora", effect, title, found, repairs.AS_LORA, source)


def trained_biases(effect: Effect, source: str, *, by_file: bool = False) -> RuntimeRule:
    """Biases of the base or of `lora_B` in the file (`listed_bias` is about the config's `bias`). `by_file`:
    for engines that read the tensors and not `lora_bias`.
    """
    title = "biases in its file" if by_file else "biases in its file, or `lora_bias`"
    found = when.biases_in_file if by_file else when.has_biases
    return RuntimeRule("biases", effect, title, found, repairs.LEAVE_OUT_BIAS, source)


def saved_modules(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "saved_modules",
        effect,
        "whole modules (`modules_to_save`) or embeddings",
        when.replaced,
        repairs.LEAVE_OUT,
        source,
    )


def copied_embeddings(source: str) -> tuple[RuntimeRule, ...]:
    """A rule for engines that ignore the copy and use the base's embedding."""
    rules: tuple[tuple[Likeness, Effect, str, str], ...] = (
        ("equal", "needs", "a copy of an embedding with its update", repairs.DROP_COPIES),
        ("rounded", "changes", "a rounded copy of an embedding with its update", repairs.DROP_COPIES),
        ("different", "changes", "an embedding whose values differ from the base's, with its update",
         repairs.MERGE),
    )  # fmt: skip
    return tuple(
        RuntimeRule("copied_embeddings", effect, title, embedding_copies.copied_as(likeness), repair, source)
        for likeness, effect, title, repair in rules
    )


def refuses_copied_embeddings(source: str) -> RuntimeRule:
    title = "a copy of an embedding with its update"
    return RuntimeRule(
        "copied_embeddings", "refuses", title, embedding_copies.copied, repairs.LEAVE_OUT, source
    )


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
        "tensors that are not factors",
        when.other_tensors,
        repairs.SPELL,
        source,
    )


def wrapped_names(effect: Effect, source: str) -> RuntimeRule:
    """A rule for engines that look modules up by their complete names."""
    title = "names with parts that torch.compile, FSDP or checkpointing add (such as `_orig_mod`)"
    return RuntimeRule("names_wrapped", effect, title, when.wrapped, repairs.SPELL, source)


def inner_names(effect: Effect, source: str) -> RuntimeRule:
    title = "names that contain an adapter's name (`lora_A.default.weight`)"
    return RuntimeRule("names_inner", effect, title, when.named_inside, repairs.SPELL, source)


def listed_bias(source: str) -> RuntimeRule:
    return RuntimeRule(
        "bias_listed",
        "refuses",
        "`bias` other than `none` in the config, if the file has no biases",
        when.lists_bias,
        repairs.NO_BIAS_LISTED,
        source,
    )


def variants(effect: Effect, source: str, but: tuple[str, ...] = ()) -> RuntimeRule:
    """The rule about LoRA variants. For engines that ignore the field (`changes`), QA-LoRA on a base without
    packed weights is served as trained: PEFT itself applies it to GPTQ layers only
    (peft/tuners/lora/gptq.py).
    """
    sentences = {name: text for name, text in _VARIANTS.items() if name not in but}
    plain = {name: text for name, text in sentences.items() if name != "qalora"}
    title = "aLoRA, QA-LoRA, BD-LoRA, Arrow, `layer_replication`"

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        is_plain = subject.base is not None and "quantization" not in subject.base.facts
        chosen = plain if effect == "changes" and is_plain else sentences
        return when.traits(chosen)(subject, runtime)

    return RuntimeRule("variant", effect, title, found, repairs.ONE_RUNTIME, source)


def starts_from_base(effect: Effect, source: str) -> RuntimeRule:
    """The rule about initialisations that start from the base. For engines that ignore the field (`changes`),
    an adapter of embeddings only is served as trained: PEFT initialises those in the usual way, except for
    LoftQ (peft/tuners/lora/layer.py · Embedding).
    """
    title = "an initialisation that removes part of the base (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA)"
    any_start, of_embeddings = (
        field_conditions.initialised(*_STARTS_FROM_BASE),
        field_conditions.initialised("loftq"),
    )

    def found(subject: CheckSubject, runtime: Runtime) -> ConditionMatch | None:
        modules = subject.spec.modules
        only_embeddings = bool(modules) and all(module.kind == "embedding" for module in modules)
        starts = of_embeddings if effect == "changes" and only_embeddings else any_start
        return starts(subject, runtime)

    return RuntimeRule("initialisation", effect, title, found, repairs.WITHOUT_START, source)


def embeddings(effect: Effect, source: str) -> RuntimeRule:
    return RuntimeRule(
        "embeddings", effect, "an update of an embedding", when.kinds("embedding"), repairs.MERGE, source
    )


def unusual_layers(effect: Effect, source: str) -> RuntimeRule:
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
        "fan_in_fan_out", "fan_in_fan_out is set: the base stores its weights transposed (GPT-2)"
    )
    return RuntimeRule("fan_in_fan_out", effect, "`fan_in_fan_out`", found, repairs.PLAIN_SIDES, source)


def transposed_experts(source: str) -> RuntimeRule:
    """PEFT before 0.19 writes fused experts as [in, out] for every model; loaders interpret them as [out,
    in].
    """
    found = when.written_before((0, 19), when.layout(EXPERTS_FUSED, "its experts are fused"))
    return RuntimeRule(
        "experts_turned",
        "changes",
        "fused experts, written by PEFT before 0.19",
        found,
        repairs.MERGE,
        source,
    )


def needs_whole_config(source: str) -> RuntimeRule:
    return RuntimeRule(
        "config_incomplete",
        "refuses",
        "no `r`, `lora_alpha` or `target_modules` in the config",
        field_conditions.field_missing("r", "lora_alpha", "target_modules"),
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
