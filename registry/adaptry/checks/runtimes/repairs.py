"""What to do about it: the ways out that rules name, each with the command that goes it."""

from __future__ import annotations

FOLD = "write it with one plain scale: adaptry convert REF -o NAME"
FOLD_UNIFORM = "write it with one rank and one plain scale: adaptry convert REF --uniform -o NAME"
AS_LORA = (
    "make a plain LoRA of it: adaptry convert REF --base BASE -o NAME; else merge it: adaptry merge --base"
    " BASE REF -o DIR"
)
WITHOUT_START = (
    "make a plain LoRA of it: adaptry convert REF --base BASE -o NAME, which says what to do where its start"
    " is not to be computed again"
)
START_LOST = "convert it once in PEFT: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST)"
NO_SAVED_LISTED = (
    "set modules_to_save to null in adapter_config.json where the file has none of them: adaptry export REF"
    " --for ENGINE -o NAME; else merge it: adaptry merge --base BASE REF -o DIR"
)
MERGE = "merge it, and serve the result as a model: adaptry merge --base BASE REF -o DIR"
LEAVE_OUT = (
    f"{MERGE}; or leave them out, which is another adapter: adaptry convert REF --whole-weights none -o NAME"
)
LEAVE_OUT_BIAS = (
    f"{MERGE}; or leave the biases out, which is another adapter: adaptry convert REF --drop-bias -o NAME"
)
SPELL = (
    "put its names right: adaptry export REF --for ENGINE -o NAME; else save it again with PEFT's"
    " model.save_pretrained(DIR), and push that"
)
LOADED_NAMES = (
    "write the names that PEFT looks for: adaptry export REF --for peft --base BASE -o NAME; else save it"
    " again with PEFT's model.save_pretrained(DIR), and push that"
)
DISK_NAMES = (
    "call its modules as the base does on disk: adaptry export REF --for ENGINE --base BASE -o NAME; else"
    " save it again with PEFT's model.save_pretrained(DIR), and push that"
)
OTHER_BASE = "look which base it was trained on: adaptry check REF --base BASE"
NO_BIAS_LISTED = (
    "set bias to none in adapter_config.json where the file has no biases: adaptry export REF --for ENGINE"
    " -o NAME"
)
AS_FLOAT32 = "write its factors as float32: adaptry export REF --for ENGINE -o NAME"
SAVE_AGAIN = (
    "write its config whole: adaptry convert REF -o NAME; else save it again with PEFT's"
    " model.save_pretrained(DIR), and push that"
)
TO_PEFT = "bring it into PEFT's layout: adaptry convert REF -o NAME"
RESIZE = "bring it to a rank that the server takes: adaptry resize REF --allowed RANKS -o NAME"
ONE_RUNTIME = "serve it with PEFT"
WRITE_ANEW = (
    "write it anew: adaptry export REF --for diffusers --base BASE -o DIR; else save it again with"
    " pipeline.save_lora_weights(DIR)"
)
ONE_ALPHA = (
    "write each module's own scale where it is read: adaptry export REF --for diffusers --base BASE -o DIR"
)
ONE_RANK = "bring it to one rank: adaptry convert REF --uniform -o NAME"
LIST_TARGETS = (
    "write the module names as a list in adapter_config.json: adaptry export REF --for ENGINE -o NAME"
)
PLAIN_SIDES = (
    "write it without fan_in_fan_out, which its factors do not need: adaptry export REF --for ENGINE -o NAME"
)
FILL_LAYERS = (
    "fill the layers that lack it with updates of zero:"
    f" adaptry export REF --for ENGINE -o NAME; else {MERGE}"
)
FILL_PARTS = (
    "fill what is one weight with it with updates of zero: adaptry export REF --for ENGINE --base BASE -o"
    f" NAME; else {MERGE}"
)
JOIN_EXPERTS = "put its experts together: adaptry convert REF --layout transformers5 -o NAME"
SPLIT_EXPERTS = "take its experts apart: adaptry convert REF --layout transformers4 -o NAME"
DROP_COPIES = (
    "nothing, where no token was added to the base: adaptry export REF --base BASE --for ENGINE leaves the"
    " copy out; else merge it: adaptry merge --base BASE REF -o DIR"
)
