"""What to do about it: the ways out that rules name, each with the command that goes it."""

from __future__ import annotations

FOLD = "write it with one plain scale: adaptry convert REF -o NAME"
FOLD_UNIFORM = "write it with one rank and one plain scale: adaptry convert REF --uniform -o NAME"
AS_LORA = "make a plain LoRA of it: adaptry convert REF --base BASE -o NAME; else merge it: adaptry merge --base BASE REF -o DIR"
WITHOUT_START = "make a plain LoRA of it: adaptry convert REF --base BASE -o NAME, which says what to do where its start is not to be computed again"
START_LOST = "convert it once in PEFT: save_pretrained(DIR, path_initial_model_for_weight_conversion=FIRST)"
NO_SAVED_LISTED = "set modules_to_save to null in adapter_config.json where the file has none of them; else merge it: adaptry merge --base BASE REF -o DIR"
MERGE = "merge it, and serve the result as a model: adaptry merge --base BASE REF -o DIR"
LEAVE_OUT = (
    f"{MERGE}; or leave them out, which is another adapter: adaptry convert REF --whole-weights none -o NAME"
)
LEAVE_OUT_BIAS = (
    f"{MERGE}; or leave the biases out, which is another adapter: adaptry convert REF --drop-bias -o NAME"
)
SAVE_AGAIN = "save it again with PEFT's model.save_pretrained(DIR), and push that"
TO_PEFT = "bring it into PEFT's layout: adaptry convert REF --base BASE -o NAME"
RESIZE = "bring it to a rank that the server takes: adaptry resize REF --allowed RANKS -o NAME"
RELAYOUT = (
    "rewrite it in the other layout: adaptry relayout REF --to transformers5 (or transformers4) -o NAME"
)
ONE_RUNTIME = "serve it with PEFT"
