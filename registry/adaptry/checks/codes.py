"""All codes of findings: severity, meaning and remedy.

Findings take their severity and remedy from this table, and the page `docs/checks.md` its text
(`python -m adaptry.checks` prints it). Codes are stable: scripts depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.report import Finding, Severity

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class FindingCode:
    """One kind of finding. A remedy must be possible for someone who has only the adapter."""

    severity: Severity
    meaning: str
    remedy: str


CODES: Mapping[str, FindingCode] = {
    # The adapter by itself
    "no_effect": FindingCode(
        "blocks",
        "A loader would use no tensor of the file: it loads without an error and changes nothing.",
        "correct its names: adaptry export REF --for peft --base BASE -o DIR; or save it again with PEFT's"
        " model.save_pretrained(DIR) and push that folder",
    ),
    "keys_dropped": FindingCode(
        "blocks",
        "Some tensors belong to the method but to no complete module; PEFT silently drops them.",
        "save it again with PEFT's model.save_pretrained(DIR); names begin with base_model.model."
        " exactly once",
    ),
    "keys_unknown": FindingCode(
        "warns",
        "Nothing in the config accounts for some tensors; loaders silently drop them.",
        "list their modules in modules_to_save if they were trained, or remove them from the file",
    ),
    "method_not_described": FindingCode(
        "warns",
        "The method is not supported by the checks yet; the adapter is stored and listed, but not checked.",
        "test it on its base before serving it; merging is refused",
    ),
    "rank_mismatch": FindingCode(
        "blocks",
        "The two factors of a module, or the factors and the config, disagree on the rank.",
        "set r and rank_pattern in adapter_config.json to the values of the training run, or save it again",
    ),
    "scale_zero": FindingCode(
        "blocks",
        "lora_alpha (in other methods alpha or scaling) is 0 or almost 0, so the adapter changes nothing.",
        "set it (and alpha_pattern) to the value of the training run",
    ),
    "modules_scaled_to_zero": FindingCode(
        "warns",
        "lora_alpha (or alpha, scaling) is 0 or almost 0 for modules with low-rank updates, so these change"
        " nothing; the rest of the adapter is applied.",
        "set it (and alpha_pattern) to the value of the training run",
    ),
    "pattern_conflict": FindingCode(
        "warns",
        "Two patterns give one module different values. PEFT sorts the keys when it saves, so a different"
        " one may apply now than in training.",
        "write rank_pattern and alpha_pattern so that each module matches one key",
    ),
    "pattern_refused": FindingCode(
        "blocks",
        "A pattern in the config is invalid or too slow to match; the modules that it selects were not"
        " checked.",
        "write the module names as a list",
    ),
    "scale_unknown": FindingCode(
        "blocks",
        "rank_pattern or alpha_pattern has a pattern that is invalid or too slow to match, so ranks and"
        " scales"
        " are unknown.",
        "use plain module names as its keys",
    ),
    "integer_weights": FindingCode(
        "blocks",
        "Factors or saved weights are integers: PEFT silently casts them, and the result is meaningless.",
        "save the adapter in a floating-point dtype, before any quantisation",
    ),
    "config_incomplete": FindingCode(
        "warns",
        "Fields are missing from the config: PEFT uses its defaults, engines refuse to load the adapter.",
        "add them to adapter_config.json with the values of the training run",
    ),
    "config_unknown": FindingCode(
        "warns",
        "The config has fields that PEFT does not know and drops: a misspelt field has no effect.",
        "correct the spelling, or remove them from adapter_config.json",
    ),
    "config_mismatch": FindingCode(
        "blocks",
        "The tensors of a module and the numbers in the config contradict each other: PEFT refuses to load"
        " them, or interprets them as a different adapter.",
        "write the numbers of the training run into adapter_config.json, or save the adapter again",
    ),
    "config_refused": FindingCode(
        "blocks",
        "A field of the config has a value for which PEFT raises an error or builds a different adapter.",
        "write the value of the training run into adapter_config.json, or save the adapter again",
    ),
    "method_retired": FindingCode(
        "warns",
        "Current versions of PEFT do not load this method under this name.",
        "load it with the version of PEFT that wrote it, or convert it to a LoRA: adaptry convert REF --base"
        " BASE"
        " -o NAME",
    ),
    "library_unknown": FindingCode(
        "warns",
        "auto_mapping names a module outside the known model libraries, such as the training script. PEFT's"
        " AutoPeftModel refuses it (before PEFT 0.20 it imports it); nothing else reads this field.",
        "load it with PeftModel.from_pretrained on a model that you created, or set auto_mapping to null",
    ),
    "layers_need_a_list": FindingCode(
        "blocks",
        "layers_to_transform is set although target_modules is a text; PEFT refuses to load this.",
        "write target_modules as a list, or remove layers_to_transform",
    ),
    "task_unknown": FindingCode(
        "blocks",
        "task_type is not one that PEFT knows; PEFT refuses to load this.",
        "set task_type to CAUSAL_LM, SEQ_CLS, SEQ_2_SEQ_LM, TOKEN_CLS,"
        " QUESTION_ANS or FEATURE_EXTRACTION, or null",
    ),
    "targets_without_tensors": FindingCode(
        "warns",
        "The config targets modules for which the file has no tensors: PEFT leaves them unchanged, with a"
        " warning.",
        "check that the adapter was saved completely, or remove these names from target_modules",
    ),
    "saved_modules_without_tensors": FindingCode(
        "warns",
        "The config lists modules_to_save, but the file has none of them: they would be untrained.",
        "save the adapter again from the trained model, or set modules_to_save to null",
    ),
    "newer_peft": FindingCode(
        "notes",
        "The adapter was written by a newer version of PEFT than these rules were checked against.",
        "nothing, unless another finding looks wrong; then upgrade adaptry",
    ),
    "depends_on_base": FindingCode(
        "warns",
        "The initialisation changed the base's weights, so the adapter is correct only on a base with the"
        " same"
        " change.",
        "convert it once: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST) in PEFT",
    ),
    "limited_use": FindingCode(
        "notes",
        "A feature of the adapter limits where it can be merged or served.",
        "check it for your engine: adaptry check REF --runtime ENGINE",
    ),
    "tensors_missing": FindingCode(
        "blocks",
        "The file lacks tensors that the method needs; PEFT replaces them by random values.",
        "save it again with PEFT's model.save_pretrained(DIR), and check that the file has them",
    ),
    "prompt_mismatch": FindingCode(
        "blocks",
        "The shape of the prompt differs from the config; PEFT refuses to load it.",
        "set num_virtual_tokens, token_dim and num_layers to the values of the training run, or save it"
        " again",
    ),
    "alpha_unknown": FindingCode(
        "warns",
        "The file does not contain alpha; loaders use the rank instead, so the strength is wrong if alpha was"
        " different.",
        "save it again with a newer version of the tool, which writes its metadata",
    ),
    "loader_refuses": FindingCode(
        "warns",
        "The tool whose format this is refuses to load the file.",
        "save it again with the newest version of that tool, or convert it to PEFT's layout:"
        " adaptry convert REF --base BASE -o NAME",
    ),
    "magnitudes_dropped": FindingCode(
        "warns",
        "A loader silently drops a DoRA's magnitudes, which makes it a different adapter.",
        "load it with the tool that trained it, and compare the outputs; one for a UNet of diffusers can be"
        " converted to PEFT's layout: adaptry convert REF --base BASE -o NAME",
    ),
    # The adapter against a base
    "base_unknown": FindingCode(
        "warns",
        "The base is not registered, so nothing could be checked against it.",
        "register it: adaptry base add FOLDER --name NAME; this also checks the adapter again",
    ),
    "base_name_differs": FindingCode(
        "warns",
        "The adapter declares a different base than the one it was checked against.",
        "check it against the base that it names or, if both are the same model, add the name:"
        " adaptry base add FOLDER --name NAME",
    ),
    "other_base": FindingCode(
        "blocks",
        "The base is not the model that the adapter is for: the shapes may fit, but the weights differ."
        " With `check --other-base` it only warns.",
        "check it against its own base, or pass --other-base if you want the other model",
    ),
    "module_missing": FindingCode(
        "blocks",
        "The base lacks modules that the adapter changes; PEFT silently drops their tensors.",
        "check it against the base it was trained on",
    ),
    "names_not_loaded": FindingCode(
        "blocks",
        "The model has no modules with the names of these tensors; PEFT silently drops them.",
        "write the names that PEFT expects: adaptry export REF --for peft --base BASE -o DIR;"
        " or save it again with PEFT's model.save_pretrained(DIR)",
    ),
    "modules_not_targeted": FindingCode(
        "blocks",
        "The file has tensors for modules that PEFT does not adapt by its config; PEFT silently drops them.",
        "set target_modules, exclude_modules and layers_to_transform to the values of the training run:"
        " adaptry export REF --for peft --base BASE -o DIR lists the modules that the file has",
    ),
    "weights_not_loaded": FindingCode(
        "blocks",
        "The model has no parameter for some tensors once PEFT has added the adapter; PEFT silently drops"
        " them.",
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
        "The file replaces weights of the base that no field of its config names; PEFT loads them, and a"
        " merge"
        " uses them.",
        "list their modules in modules_to_save if they were trained, or remove them from the file",
    ),
    "module_ambiguous": FindingCode(
        "blocks",
        "A module's name matches several weights of the base, so its weight is unknown.",
        "save the adapter again with the version of transformers that loads this base",
    ),
    "shape_mismatch": FindingCode(
        "blocks",
        "The sizes of a module's factors differ from those of the base's weight.",
        "check it against the base it was trained on",
    ),
    "prompt_width": FindingCode(
        "blocks",
        "The width of a prompt or prefix differs from that of the base's embeddings, or of its keys and"
        " values.",
        "check it against the base it was trained on",
    ),
    "experts_layout": FindingCode(
        "warns",
        "The adapter has fused experts and the base separate ones, in an unknown layout, or the reverse.",
        "test it on its base before serving it: loaders that do not convert it drop those tensors",
    ),
    "module_renamed": FindingCode(
        "warns",
        "transformers renames or fuses this family's weights at load, so modules could not be looked up;"
        " the base has weights of their width.",
        "test it on its base before serving it; merging is refused",
    ),
    "extra_missing": FindingCode(
        "blocks",
        "The adapter replaces weights that the base does not have.",
        "check it against the base it was trained on",
    ),
    "new_head": FindingCode(
        "notes",
        "The adapter contains whole modules that the base does not have, such as a classification head.",
        "load it with the model class for its task",
    ),
    "extra_shape": FindingCode(
        "blocks",
        "A weight that replaces one of the base's has a different shape.",
        "check it against the base it was trained on",
    ),
    "vocabulary_resized": FindingCode(
        "warns",
        "The saved embeddings have more rows than the base: tokens were added, and a loader that ignores them"
        " gives wrong answers.",
        "resize the base's embeddings before loading, or merge with --resize-vocab; use the adapter's"
        " tokenizer with it",
    ),
    "token_outside_vocabulary": FindingCode(
        "blocks",
        "The adapter trains tokens that are not in the base's vocabulary.",
        "check it against the base it was trained on, or resize that base's embeddings first",
    ),
    "tokenizer_differs": FindingCode(
        "blocks",
        "The adapter's tokenizer gives tokens of the base different ids. The adapter was trained on other"
        " inputs"
        " than it would get, or the file is not its tokenizer.",
        "check it against the base whose tokenizer this is, or remove the tokenizer's files if they are"
        " another model's",
    ),
    "tokenization_differs": FindingCode(
        "warns",
        "The adapter's tokenizer has the base's tokens, but splits texts differently: by other merges,"
        " another"
        " normalizer or other special tokens around a text.",
        "serve it with the adapter's tokenizer, or remove the tokenizer's files if the adapter was trained"
        " with the base's",
    ),
    "tokenizer_not_compared": FindingCode(
        "notes",
        "The adapter has a tokenizer, but the base was registered before tokenizers were compared, or from a"
        " folder without tokenizer.json.",
        "register the base again, from its folder with the tokenizer: adaptry base add DIR",
    ),
    "tokens_replaced": FindingCode(
        "warns",
        "The adapter's tokenizer replaces some of the base's added tokens, for example by renaming reserved"
        " ones.",
        "serve it with the adapter's tokenizer",
    ),
    "tokens_added": FindingCode(
        "notes",
        "The adapter's tokenizer has tokens that the base's does not have.",
        "serve it with the adapter's tokenizer",
    ),
    "tokens_without_rows": FindingCode(
        "warns",
        "The adapter's tokenizer has tokens for which neither the base's embedding nor the adapter has a row:"
        " a prompt that contains one fails.",
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
        "The adapter's chat template differs from the base's. An engine that serves both uses the base's, so"
        " prompts are formatted differently than in training.",
        "give the engine the adapter's template (--chat-template in vLLM), or remove the file if the adapter"
        " was trained with the base's",
    ),
    "merge_differs": FindingCode(
        "warns",
        "PEFT's merge of this method into such a weight differs from the unmerged adapter.",
        "serve it unmerged with PEFT, or compare the answers of the merged model with the unmerged adapter's",
    ),
    "bias_without_place": FindingCode(
        "warns",
        "The adapter trains biases (lora_bias) of modules that have no bias in the base, so it cannot be"
        " merged.",
        "serve it unmerged, or train with lora_bias=False",
    ),
    "base_quantised": FindingCode(
        "warns",
        "The base's weights are quantised: the adapter can be served on them, but for a merge you must"
        " choose a"
        " copy.",
        "merge into the base it was quantised from (`--base-copy original`) or, where bitsandbytes quantised"
        " it, into its dequantised weights (`--base-copy dequantised`)",
    ),
    "tied_embeddings": FindingCode(
        "warns",
        "The adapter changes an embedding that is also the output head: the unmerged adapter changes one"
        " side,"
        " PEFT's merge both.",
        "merge with an untied head (the default here), and compare with the unmerged adapter",
    ),
    "layers_renumbered": FindingCode(
        "warns",
        "layer_replication builds another model from the base's layers. The adapter is checked against that"
        " model, which PEFT builds when it loads the adapter, and engines do not.",
        "merge it, which writes the deeper model, or serve it with PEFT; engines refuse it",
    ),
    "layers_random": FindingCode(
        "blocks",
        "The config targets modules of the base for which the file has no tensors; with this method or"
        " config,"
        " PEFT initialises them with random values.",
        "save the complete adapter again; if only some layers were trained, set layers_to_transform",
    ),
    "layers_uncovered": FindingCode(
        "warns",
        "The config targets modules of the base for which the file has no tensors; they stay unchanged.",
        "check that the adapter was saved completely; if only some layers were trained, set"
        " layers_to_transform",
    ),
    # The weights, inspected at every push and with --weights
    "weights_nan": FindingCode(
        "blocks",
        "Some weights are NaN, so every output would be NaN.",
        "go back to a checkpoint from before the training diverged",
    ),
    "weights_infinite": FindingCode(
        "blocks",
        "Some weights are infinite.",
        "go back to a checkpoint from before the training diverged; in float16, train with a smaller scale",
    ),
    "untrained": FindingCode(
        "warns",
        "Every B factor is zero: the adapter is untrained and changes nothing.",
        "push the trained adapter; under DeepSpeed or FSDP, gather the weights before saving",
    ),
    "modules_untrained": FindingCode(
        "warns",
        "Some B factors are all zero, so these modules change nothing.",
        "check that these modules were trained, or remove them from target_modules",
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
        "tokenization_differs",
        "tokenizer_not_compared",
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
"""Findings that compare an adapter with a base, or report that the base is unknown."""


def build_finding(code: str, reason: str, modules: Iterable[str] = ()) -> Finding:
    """A finding with the table's severity and remedy, and the first 20 of `modules`."""
    entry = CODES[code]
    return Finding(
        code=code,
        severity=entry.severity,
        reason=reason,
        remedy=entry.remedy,
        modules=tuple(modules)[:_SHOWN],
    )


def render_page() -> str:
    """The page `docs/checks.md`, from the table."""
    lines = [
        "# Findings of checks",
        "",
        (
            "`adaptry check` and every push report findings. If a finding *blocks*, `check` exits with 1 and"
            " a push is refused (unless an administrator of the namespace gives a reason:"
            " `--force --reason`). A finding that *warns* or *notes* is stored and shown."
        ),
        "",
        "This page is written by `python -m adaptry.checks > docs/checks.md`.",
        "",
        (
            "A registry inspects all weights before it admits them, whether they come by `adaptry push`, over"
            " REST, from the Hub's clients, from mirrors or from jobs. Commits to branches with NaN or"
            " infinity are refused too. A child process with limits on memory and processor time counts the"
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
        "| code | severity | meaning | remedy |",
        "|---|---|---|---|",
        *(
            f"| `{code}` | {entry.severity} | {entry.meaning} | {entry.remedy} |"
            for code, entry in CODES.items()
        ),
    ]
    return "\n".join(lines) + "\n"
