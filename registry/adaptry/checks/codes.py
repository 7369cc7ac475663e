"""Every code a check can give: how serious it is, what it means, and what to do about it.

The one table from which findings take their severity and remedy and the page `docs/checks.md` its text
(`python -m adaptry.checks` writes it). Codes are stable: scripts wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adaptry.core.report import Finding, Severity

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class FindingCode:
    """One kind of finding. A remedy is a sentence that someone who has only the adapter can act on."""

    severity: Severity
    meaning: str
    remedy: str


CODES: Mapping[str, FindingCode] = {
    # The adapter by itself
    "no_effect": FindingCode(
        "blocks",
        "No tensor of the file is one that a loader would use:"
        " it loads without an error and changes nothing.",
        "put its names right: adaptry export REF --for peft --base BASE -o DIR; else save it again with"
        " PEFT's model.save_pretrained(DIR) and push that folder",
    ),
    "keys_dropped": FindingCode(
        "blocks",
        "Some tensors belong to the method but to no complete module; PEFT drops them without a word.",
        "save it again with PEFT's model.save_pretrained(DIR); names begin with base_model.model."
        " exactly once",
    ),
    "keys_unknown": FindingCode(
        "warns",
        "Some tensors belong to nothing the config describes; loaders drop them without a word.",
        "list their modules in modules_to_save if they were trained, or remove them from the file",
    ),
    "method_not_described": FindingCode(
        "warns",
        "The method is one whose rules we do not check yet; the adapter is stored and listed,"
        " and not vouched for.",
        "test it on its base before it is served; merging it is refused",
    ),
    "rank_mismatch": FindingCode(
        "blocks",
        "The two factors of a module, or the factors and the config, disagree on the rank.",
        "make r and rank_pattern in adapter_config.json those the adapter was trained with, or save it again",
    ),
    "scale_zero": FindingCode(
        "blocks",
        "lora_alpha is 0 for some modules, so whatever they learned is multiplied by nothing.",
        "set lora_alpha (and alpha_pattern) to the values of the training run",
    ),
    "pattern_conflict": FindingCode(
        "warns",
        "Two patterns give one module different values. PEFT sorts the keys when it saves, so the one that"
        " wins may have changed.",
        "write rank_pattern and alpha_pattern so that each module matches one key",
    ),
    "pattern_refused": FindingCode(
        "blocks",
        "A pattern in the config could take for ever to match, or is none; what it selects was not checked.",
        "write the module names as a list",
    ),
    "scale_unknown": FindingCode(
        "blocks",
        "rank_pattern or alpha_pattern has a pattern that could take for ever to match, or is none, so ranks"
        " and scales are unknown.",
        "write the module names themselves as its keys",
    ),
    "integer_weights": FindingCode(
        "blocks",
        "Factors or saved weights are integers: PEFT casts them without a word,"
        " and the result means nothing.",
        "save the adapter in a floating-point dtype, before any quantisation",
    ),
    "config_incomplete": FindingCode(
        "warns",
        "Fields are missing from the config: PEFT puts its defaults in their place, engines refuse to load.",
        "add them to adapter_config.json as they were in the training run",
    ),
    "config_unknown": FindingCode(
        "warns",
        "The config has fields that PEFT does not know and drops: a misspelt one is as if it were not there.",
        "correct the spelling, or remove them from adapter_config.json",
    ),
    "config_mismatch": FindingCode(
        "blocks",
        "The tensors of a module and the numbers in the config contradict each other: PEFT refuses to load"
        " them, or takes them for another adapter.",
        "write the numbers of the training run into adapter_config.json, or save the adapter again",
    ),
    "config_refused": FindingCode(
        "blocks",
        "A field of the config has a value for which PEFT raises an error or builds another adapter.",
        "write the value of the training run into adapter_config.json, or save the adapter again",
    ),
    "method_retired": FindingCode(
        "warns",
        "Today's PEFT no longer loads this method under its name.",
        "load it with the PEFT that wrote it, or make a LoRA of it: adaptry convert REF --base BASE -o NAME",
    ),
    "library_unknown": FindingCode(
        "warns",
        "auto_mapping names a module that is of no known library of models, such as the script of the"
        " training. PEFT's AutoPeftModel refuses it, and imports it before PEFT 0.20; nothing else reads it.",
        "load it with PeftModel.from_pretrained on a model that you made, or set auto_mapping to null",
    ),
    "layers_need_a_list": FindingCode(
        "blocks",
        "layers_to_transform stands beside a target_modules that is a text; PEFT refuses to load this.",
        "write target_modules as a list, or leave layers_to_transform out",
    ),
    "task_unknown": FindingCode(
        "blocks",
        "task_type is not one that PEFT knows; PEFT refuses to load this.",
        "set task_type to CAUSAL_LM, SEQ_CLS, SEQ_2_SEQ_LM, TOKEN_CLS,"
        " QUESTION_ANS or FEATURE_EXTRACTION, or null",
    ),
    "targets_without_tensors": FindingCode(
        "warns",
        "The config targets modules for which the file has no tensors:"
        " PEFT leaves them as they were, with a warning.",
        "check that saving was complete, or remove these names from target_modules",
    ),
    "saved_modules_without_tensors": FindingCode(
        "warns",
        "The config lists modules_to_save, and the file has none of them: they would start untrained.",
        "save the adapter again from the trained model, or set modules_to_save to null",
    ),
    "newer_peft": FindingCode(
        "notes",
        "The adapter was written by a newer PEFT than the rules here were checked against.",
        "nothing to do unless another finding looks odd; then upgrade adaptry",
    ),
    "depends_on_base": FindingCode(
        "warns",
        "The initialisation changed the base's weights,"
        " so the adapter is right only on a base that was changed alike.",
        "convert it once: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST) in PEFT",
    ),
    "limited_use": FindingCode(
        "notes",
        "Some feature of the adapter limits where it can be merged or served.",
        "see the runtime checks of the engine you mean to use",
    ),
    "tensors_missing": FindingCode(
        "blocks",
        "The file lacks tensors without which the method is not what was trained;"
        " PEFT puts random ones in their place.",
        "save it again with PEFT's model.save_pretrained(DIR), and look into the file",
    ),
    "prompt_mismatch": FindingCode(
        "blocks",
        "The prompt has another shape than the config says; PEFT refuses to load it.",
        "make num_virtual_tokens, token_dim and num_layers those of the training run, or save it again",
    ),
    "alpha_unknown": FindingCode(
        "warns",
        "The file does not say its alpha; whoever loads it takes the rank,"
        " and so another strength if it was another.",
        "save it again with a newer version of the tool, which writes its metadata",
    ),
    "loader_refuses": FindingCode(
        "warns",
        "The tool for which the file is named refuses to load it as it is.",
        "save it again with the newest version of that tool, or bring it into PEFT's layout:"
        " adaptry convert REF --base BASE -o NAME",
    ),
    "magnitudes_dropped": FindingCode(
        "warns",
        "A DoRA's magnitudes are left out without an error by a loader, which makes another adapter of it.",
        "load it with the tool that trained it, and compare the outputs; a UNet's of diffusers can be brought"
        " into PEFT's layout: adaptry convert REF --base BASE -o NAME",
    ),
    # The adapter against a base
    "base_unknown": FindingCode(
        "warns",
        "The base is not known by content, so nothing could be checked against it.",
        "register it once: adaptry base add FOLDER --name NAME; the adapter is checked again then",
    ),
    "base_name_differs": FindingCode(
        "warns",
        "The adapter says that it was trained on another base than it was checked against.",
        "check it against the base it names, or, if both are one model, add the name:"
        " adaptry base add FOLDER --name NAME",
    ),
    "other_base": FindingCode(
        "blocks",
        "The base is another model than the one the adapter is for: the shapes may fit, and the weights are"
        " not the same. With `check --other-base` it warns.",
        "check it against its own base, or say --other-base if another model is what you want",
    ),
    "module_missing": FindingCode(
        "blocks",
        "Modules the adapter changes do not exist in the base; PEFT drops their tensors without a word.",
        "check it against the base it was trained on",
    ),
    "names_not_loaded": FindingCode(
        "blocks",
        "The model has no modules of the names that the tensors have;"
        " PEFT drops such tensors without a word.",
        "write the names that PEFT looks for: adaptry export REF --for peft --base BASE -o DIR;"
        " else save it again with PEFT's model.save_pretrained(DIR)",
    ),
    "modules_not_targeted": FindingCode(
        "blocks",
        "The file has tensors for modules that its config does not make PEFT adapt;"
        " PEFT drops them without a word.",
        "make target_modules, exclude_modules and layers_to_transform those of the training run:"
        " adaptry export REF --for peft --base BASE -o DIR lists the modules that the file has",
    ),
    "weights_not_loaded": FindingCode(
        "blocks",
        "Some tensors have no place in the model once PEFT has put the adapter into it;"
        " PEFT drops them without a word.",
        "remove them from the file if they were not trained, or save the adapter again with PEFT's"
        " model.save_pretrained(DIR)",
    ),
    "peft_refuses": FindingCode(
        "blocks",
        "PEFT raises an error instead of loading the adapter onto this base.",
        "make adapter_config.json agree with the file, or save the adapter again with PEFT's"
        " model.save_pretrained(DIR)",
    ),
    "base_weight_replaced": FindingCode(
        "warns",
        "The file replaces weights of the base that no field of its config names;"
        " PEFT loads them, and so does a merge.",
        "list their modules in modules_to_save if they were trained, or remove them from the file",
    ),
    "module_ambiguous": FindingCode(
        "blocks",
        "A module's name fits several weights of the base, and guessing would be wrong for all but one.",
        "save the adapter again with the transformers version that loads this base",
    ),
    "shape_mismatch": FindingCode(
        "blocks",
        "A module's factors are wider or narrower than the base's weight.",
        "check it against the base it was trained on",
    ),
    "prompt_width": FindingCode(
        "blocks",
        "A prompt or prefix is as wide as the embeddings, or the keys and values, of another model.",
        "check it against the base it was trained on",
    ),
    "experts_layout": FindingCode(
        "warns",
        "The adapter has a layer's experts fused and the base stores them one by one, in a way that is not"
        " known here, or the reverse.",
        "test it on its base before it is served: loaders that do not convert it drop those tensors",
    ),
    "module_renamed": FindingCode(
        "warns",
        "transformers renames or fuses this family's weights as it loads them, so modules could not be looked"
        " up; weights of their width are there.",
        "test it on its base before it is served; merging it is refused",
    ),
    "extra_missing": FindingCode(
        "blocks",
        "The adapter replaces weights that the base does not have.",
        "check it against the base it was trained on",
    ),
    "new_head": FindingCode(
        "notes",
        "The adapter brings whole modules that the base does not have, such as a classification head.",
        "load it with the model class of its task",
    ),
    "extra_shape": FindingCode(
        "blocks",
        "A weight that replaces one of the base has another shape.",
        "check it against the base it was trained on",
    ),
    "vocabulary_resized": FindingCode(
        "warns",
        "The saved embeddings have more rows than the base: tokens were added,"
        " and a loader that ignores them is wrong.",
        "resize the base's embeddings before loading, or merge with --resize-vocab; keep the adapter's"
        " tokenizer with it",
    ),
    "token_outside_vocabulary": FindingCode(
        "blocks",
        "The adapter trains tokens that the base's vocabulary does not have.",
        "check it against the base it was trained on, or resize that base's embeddings first",
    ),
    "tokenizer_differs": FindingCode(
        "blocks",
        "The adapter's tokenizer gives other ids than the base's to tokens that the base has: the adapter was"
        " trained on other inputs than it would get, or the file is not its tokenizer.",
        "check it against the base whose tokenizer this is, or remove the tokenizer's files if they are"
        " another model's",
    ),
    "tokens_replaced": FindingCode(
        "warns",
        "The adapter's tokenizer has other tokens in the place of some of the base's added ones, as where"
        " reserved tokens were renamed.",
        "serve it with the adapter's own tokenizer",
    ),
    "tokens_added": FindingCode(
        "notes",
        "The adapter's tokenizer has tokens that the base's does not have.",
        "serve it with the adapter's own tokenizer",
    ),
    "tokens_without_rows": FindingCode(
        "warns",
        "The adapter's tokenizer has tokens for which neither the base's embedding nor the adapter has a row:"
        " a prompt with one of them fails.",
        "save the adapter with the resized embeddings (save_embedding_layers=True in PEFT), or remove the"
        " tokenizer's files if these tokens are not used",
    ),
    "tokenizer_unreadable": FindingCode(
        "warns",
        "The adapter's tokenizer cannot be read, so it was not compared with the base's.",
        "save the tokenizer again with tokenizer.save_pretrained(DIR), or remove its files",
    ),
    "chat_template_differs": FindingCode(
        "warns",
        "The adapter brings another chat template than the base's. An engine that serves both uses the"
        " base's, so prompts are not laid out as in the training.",
        "give the engine the adapter's template (--chat-template in vLLM), or remove the file if the adapter"
        " was trained with the base's",
    ),
    "merge_differs": FindingCode(
        "warns",
        "PEFT's merge of this method into such a weight is not what the adapter does unmerged.",
        "serve it unmerged with PEFT, or compare the merge's answers with the live adapter's",
    ),
    "bias_without_place": FindingCode(
        "warns",
        "The adapter trains biases (lora_bias) for modules that have none in the base,"
        " so it cannot be merged.",
        "serve it unmerged, or train with lora_bias=False",
    ),
    "base_quantised": FindingCode(
        "warns",
        "The base's weights are quantised: the adapter can be served on them, and a merge has to be told"
        " which copy to use.",
        "merge into the base it was quantised from (`--base-copy original`) or, where bitsandbytes quantised"
        " it, into its dequantised weights (`--base-copy dequantised`)",
    ),
    "tied_embeddings": FindingCode(
        "warns",
        "The adapter changes an embedding that is also the output head: the live adapter changes one side,"
        " PEFT's merge both.",
        "merge with the head untied (the default here), and compare with the live adapter",
    ),
    "layers_renumbered": FindingCode(
        "warns",
        "layer_replication builds another model out of the base's layers. The adapter is checked against that"
        " model, which PEFT builds as it loads the adapter and engines do not.",
        "merge it, which writes the deeper model out, or serve it with PEFT; engines refuse it",
    ),
    "layers_random": FindingCode(
        "blocks",
        "Modules that the config targets in the base have no tensors in the file, and PEFT starts them at"
        " random values with this method or config.",
        "save the whole adapter again; if only some layers were trained, set layers_to_transform",
    ),
    "layers_uncovered": FindingCode(
        "warns",
        "Modules that the config targets in the base have no tensors in the file; they stay as they were.",
        "check that saving was complete; if only some layers were trained, set layers_to_transform",
    ),
    # The weights, inspected at every push and with --weights
    "weights_nan": FindingCode(
        "blocks",
        "Weights are not numbers (NaN): every output would be.",
        "go back to a checkpoint from before the training diverged",
    ),
    "weights_infinite": FindingCode(
        "blocks",
        "Weights are infinite.",
        "go back to a checkpoint from before the training diverged; in float16, train with a smaller scale",
    ),
    "untrained": FindingCode(
        "warns",
        "Every B factor is zero: the adapter is as it was before training and changes nothing.",
        "push the trained adapter; under DeepSpeed or FSDP, gather the weights before saving",
    ),
    "modules_untrained": FindingCode(
        "warns",
        "Some B factors are all zero, so these modules change nothing.",
        "check that these modules were trained, or leave them out of target_modules",
    ),
}


AGAINST_BASE = frozenset(
    [
        "base_unknown",
        "base_name_differs",
        "other_base",
        "module_missing",
        "names_not_loaded",
        "modules_not_targeted",
        "weights_not_loaded",
        "peft_refuses",
        "base_weight_replaced",
        "module_ambiguous",
        "shape_mismatch",
        "prompt_width",
        "experts_layout",
        "module_renamed",
        "extra_missing",
        "new_head",
        "extra_shape",
        "vocabulary_resized",
        "token_outside_vocabulary",
        "tokenizer_differs",
        "tokens_replaced",
        "tokens_added",
        "tokens_without_rows",
        "tokenizer_unreadable",
        "chat_template_differs",
        "merge_differs",
        "bias_without_place",
        "base_quantised",
        "tied_embeddings",
        "layers_renumbered",
        "layers_random",
        "layers_uncovered",
    ]
)
"""Findings that compare an adapter with a base, or miss one."""


def build_finding(code: str, reason: str, modules: Iterable[str] = ()) -> Finding:
    """A finding of the table's severity and remedy; of the modules it names the first 20 are kept."""
    entry = CODES[code]
    return Finding(
        code=code,
        severity=entry.severity,
        reason=reason,
        remedy=entry.remedy,
        modules=tuple(modules)[:_SHOWN],
    )


def render_page() -> str:
    """The table as the page `docs/checks.md`."""
    lines = [
        "# What a check can find",
        "",
        (
            "`adaptry check` and every push give findings. One that *blocks* makes `check` exit with 1 and a"
            " push be refused (unless an administrator of the namespace says why: `--force --reason`); one"
            " that *warns* is stored and shown; one that"
            " *notes* is for the record."
        ),
        "",
        "This page is written by `python -m adaptry.checks > docs/checks.md`.",
        "",
        (
            "A registry inspects all weights before it admits them, whether they come by `adaptry push`, over"
            " REST, from the Hub's clients, from mirrors or from jobs. Commits to branches with NaN or"
            " infinity are refused too. A child process with bounds on memory and processor time counts the"
            " NaN and infinite elements of every tensor, and computes the Euclidean norm of the others in"
            " float64. If the process fails, the push fails with `unavailable` (503) and can be repeated; the"
            " uploaded files are kept. `adaptry show REF` shows the totals, `adaptry inspect REF --weights`"
            " every tensor, and `GET /api/v1/adapters/NAMESPACE/NAME/versions/VERSION/tensors` returns the"
            " tensors in pages. A version pushed to an older Adaptry is shown as not inspected until one of"
            " the last two is called for it."
        ),
        "",
        (
            "Tensors of F64, F32, F16, BF16, F8_E4M3, F8_E5M2, F8_E8M0 and C64 (as pairs of F32) have a norm."
            " Integers, booleans and weights packed in them have none (`null`), and neither has a tensor"
            " whose norm exceeds float64. With numpy (installed by the extras `server` and `torch`), a"
            " gigabyte takes about a second; without it, 10 to 30 seconds. Both ways give the same counts,"
            " and norms that agree to a relative 1e-12."
        ),
        "",
        "| code | | what it means | what to do |",
        "|---|---|---|---|",
        *(
            f"| `{code}` | {entry.severity} | {entry.meaning} | {entry.remedy} |"
            for code, entry in CODES.items()
        ),
    ]
    return "\n".join(lines) + "\n"
