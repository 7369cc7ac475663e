"""X-LoRA (arXiv 2402.07148; PEFT `tuners/xlora`): a classifier that weighs other LoRA adapters for every token.

The file holds the classifier alone; its members are adapters of their own, which the config names by their paths.
"""

from __future__ import annotations

from adaptry.methods.method import Method
from adaptry.methods.prompts import no_modules

METHOD = Method(
    name="xlora",
    title="X-LoRA",
    tails={},
    width=no_modules,
    shared={r"internal_xlora_classifier\.(?P<rest>.+)": "classifier"},
    # PEFT drops a classifier's first layer where a member has its number for a name, so it may be missing.
    needs=lambda config: ("classifier.layers.0.weight", "classifier.layers.0.bias"),
    traits=lambda config: ["members"] if config.fields.get("adapters") else [],
    instead=(
        "it weighs its members anew for every token: serve it unmerged, with PEFT's PeftModel.from_pretrained, or "
        "merge one of its members"
    ),
)
