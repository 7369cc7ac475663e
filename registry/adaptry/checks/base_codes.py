"""The codes of findings that compare an adapter with a base."""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.checks.codes import FindingCode

BASE_CODES: Mapping[str, FindingCode] = {
    "base_name_differs": FindingCode(
        "warns",
        "The adapter declares a different base from the one it was checked against.",
        "check it against the base that it names or, if both are the same model, add the name:"
        " adaptry base add FOLDER --name NAME; if the name is a folder's, confirm the base of a version:"
        " adaptry base bind REF BASE",
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
        "The model has no modules with the names of these tensors, or the config selects modules by such"
        " names; PEFT silently drops the tensors, or applies them with another alpha.",
        "write the names that PEFT expects: adaptry export REF --for peft --base BASE -o ./DIR;"
        " or save it again with PEFT's model.save_pretrained(DIR)",
    ),
    "model_class_chosen": FindingCode(
        "warns",
        "The config states neither task_type nor auto_mapping, and the names are those of a model without a"
        " head on a base that was saved with one, or the reverse. PEFT loads the adapter onto that class, and"
        " on the base's own class it silently drops the tensors.",
        "load it onto that class, such as AutoModel. If it was trained on the base's own class, set task_type"
        " and correct the names: adaptry export REF --for peft --base BASE -o ./DIR",
    ),
    "modules_not_targeted": FindingCode(
        "blocks",
        "The file has tensors for modules that PEFT does not adapt by its config; PEFT silently drops them.",
        "set target_modules, exclude_modules and layers_to_transform to the values of the training run:"
        " adaptry export REF --for peft --base BASE -o ./DIR lists the modules that the file has",
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
    "parameters_unknown": FindingCode(
        "warns",
        "target_parameters lists names of which the model has no parameter. PEFT warns about them, or ignores"
        " them if it finds others.",
        "correct the names, which are those in the model (transformers 5: experts.gate_up_proj,"
        " experts.down_proj), or remove them from target_parameters",
    ),
    "modules_bypassed": FindingCode(
        "warns",
        "The model reads the weights of these modules without calling them, so PEFT's unmerged adapter does"
        " not change its answers there; a merge does.",
        "merge the adapter, or remove these modules from target_modules before training",
    ),
    "saved_copy_unused": FindingCode(
        "warns",
        "modules_to_save lists an embedding that the model never calls, since it only holds the weight of"
        " others. PEFT trains a copy of it, which changes neither the adapted model's answers nor its merge.",
        "train the embeddings that the model calls: list encoder.embed_tokens and decoder.embed_tokens, or"
        " train token rows (trainable_token_indices)",
    ),
    "saved_copy_differs": FindingCode(
        "warns",
        "The file has a copy of an embedding beside an update of it, and the copy differs from the base's:"
        " the adapter was trained on another base, or saved while it was merged (or after merges and"
        " unmerges, which round it). PEFT adds the update to the copy, so it is applied twice if the copy has"
        " it already.",
        "if it was merged, call model.unmerge_adapter() and save it again; else check it against the base it"
        " was trained on",
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
    "saved_module_dropped": FindingCode(
        "warns",
        "The adapter contains whole modules that the base does not have, and neither does transformers' class"
        " for its task_type: PEFT drops them without an error.",
        "load it with the model class that it was trained on; if no class has these modules, remove them",
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
    "quantised_refused": FindingCode(
        "warns",
        "PEFT cannot use the unmerged adapter on this quantised base: it raises an error, or changes"
        " nothing.",
        "serve it on the base in 16 or 32 bits, or merge it into that (`--base-copy original` or `--base-copy"
        " dequantised`)",
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
    "lost_in_merge": FindingCode(
        "notes",
        "The updates are so small that a merge, which rounds to the base's dtype, would lose most of them:"
        " the result would answer like the base. Estimated from the base's weights.",
        "serve the adapter unmerged, or merge with --dtype float32 and serve the result in float32",
    ),
}

AGAINST_BASE = frozenset([*BASE_CODES, "base_unknown"])
"""Findings that compare an adapter with a base, or report that the base is unknown."""
