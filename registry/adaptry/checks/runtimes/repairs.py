"""The remedies that rules name, each with its command."""

from __future__ import annotations

SET_LORA = "set peft_type to LORA in adapter_config.json, if its method is LoRA"
UNKNOWN_METHOD = (
    "serve it with the library that trained it; if its method is LoRA, set peft_type to LORA in"
    " adapter_config.json"
)
FOLD = "write it with one plain scale: adaptry convert REF -o NAME"
FOLD_UNIFORM = "write it with one rank and one plain scale: adaptry convert REF --uniform -o NAME"
AS_LORA = (
    "convert it to a plain LoRA: adaptry convert REF --base BASE -o NAME; or merge it: adaptry merge --base"
    " BASE REF -o DIR"
)
WITHOUT_START = (
    "convert it to a plain LoRA: adaptry convert REF --base BASE -o NAME, which says what to do if its"
    " initialisation cannot be reproduced"
)
START_LOST = "convert it once in PEFT: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST)"
NO_SAVED_LISTED = (
    "set modules_to_save to null in adapter_config.json if the file has none of them: adaptry export REF"
    " --for ENGINE -o NAME; or merge it: adaptry merge --base BASE REF -o DIR"
)
MERGE = "merge it, and serve the result as a model: adaptry merge --base BASE REF -o DIR"
LEAVE_OUT = (
    f"{MERGE}; or leave them out, which gives a different adapter: adaptry convert REF --whole-weights none"
    " -o NAME"
)
LEAVE_OUT_BIAS = (
    f"{MERGE}; or leave the biases out, which gives a different adapter: adaptry convert REF --drop-bias -o"
    " NAME"
)
SPELL = (
    "correct its names: adaptry export REF --for ENGINE -o NAME; or save it again with PEFT's"
    " model.save_pretrained(DIR), and push that"
)
LOADED_NAMES = (
    "write the names that PEFT expects: adaptry export REF --for peft --base BASE -o NAME; or save it"
    " again with PEFT's model.save_pretrained(DIR), and push that"
)
DISK_NAMES = (
    "use the module names in the base's files: adaptry export REF --for ENGINE --base BASE -o NAME; or"
    " save it again with PEFT's model.save_pretrained(DIR), and push that"
)
OTHER_BASE = "check whether this is the base that it was trained on: adaptry check REF --base BASE"
NO_BIAS_LISTED = (
    "set bias to none in adapter_config.json if the file has no biases: adaptry export REF --for ENGINE"
    " -o NAME"
)
AS_FLOAT32 = "write its factors as float32: adaptry export REF --for ENGINE -o NAME"
SAVE_AGAIN = (
    "write a complete config: adaptry convert REF -o NAME; or save it again with PEFT's"
    " model.save_pretrained(DIR), and push that"
)
TO_PEFT = "convert it to PEFT's layout: adaptry convert REF -o NAME"
RESIZE = "change it to a rank that the server supports: adaptry resize REF --allowed RANKS -o NAME"
ONE_RUNTIME = "serve it with PEFT"
WRITE_ANEW = (
    "write it again: adaptry export REF --for diffusers --base BASE -o ./DIR; or save it again with"
    " pipeline.save_lora_weights(DIR)"
)
ONE_ALPHA = (
    "write each module's scale where diffusers reads it: adaptry export REF --for diffusers --base BASE -o"
    " DIR"
)
ONE_RANK = "change it to one rank: adaptry convert REF --uniform -o NAME"
LIST_TARGETS = (
    "write the module names as a list in adapter_config.json: adaptry export REF --for ENGINE -o NAME"
)
PLAIN_SIDES = (
    "write it without fan_in_fan_out, which its factors do not need: adaptry export REF --for ENGINE -o NAME"
)
FILL_LAYERS = (
    f"add zero updates to the layers that lack it: adaptry export REF --for ENGINE -o NAME; or {MERGE}"
)
FILL_PARTS = (
    "add zero updates for the modules that are packed with it: adaptry export REF --for ENGINE --base BASE"
    f" -o NAME; or {MERGE}"
)
JOIN_EXPERTS = "fuse its experts: adaptry convert REF --layout transformers5 -o NAME"
SPLIT_EXPERTS = "separate its experts: adaptry convert REF --base BASE --layout transformers4 -o NAME"
WRITE_GGUF = (
    "write it as GGUF: adaptry export REF --for ENGINE --base BASE -o ./DIR; or give the converter the model"
    " that the base was quantised from"
)
FILL_EXPERTS = (
    "write it as GGUF: adaptry export REF --for ENGINE --base BASE -o ./DIR; or, if PEFT refuses it too,"
    " serve it with the versions of PEFT and transformers that trained it"
)
SPLIT_FOR_GGUF = (
    "write them one by one, as GGUF has them: adaptry export REF --for ENGINE --base BASE -o ./DIR"
)
DROP_COPIES = (
    "nothing, if no token was added to the base: adaptry export REF --base BASE --for ENGINE leaves the"
    " copy out; otherwise merge it: adaptry merge --base BASE REF -o DIR"
)
