"""Whether an adapter is a plain LoRA, whose factors alone are its update."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods.lora_config import lora_variant


def plain_reason(adapter: Adapter) -> str | None:
    """Why the update of a LoRA is more than its factors, as the end of a sentence ("is DoRA, …"); None if it
    is not.
    """
    spec = adapter.spec
    if spec.method != "lora":
        from adaptry.adapters.methods import METHODS  # needed only for this message

        return f"is {METHODS[spec.method].title if spec.method in METHODS else spec.method}, not LoRA"
    if "dora" in spec.traits:
        return "is DoRA, whose update depends on the base's weights"
    if "lora_bias" in spec.traits:
        return "changes biases (lora_bias), which factors cannot represent"
    for trait, what in (
        ("alora", "aLoRA"),
        ("arrow", "an Arrow router"),
        ("qalora", "QA-LoRA"),
        ("kasa", "KaSA"),
    ):
        if trait in spec.traits:
            return f"is {what}, which is more than a sum of factors"
    init = lora_variant(adapter.config).initialisation
    if init.startswith(("pissa", "olora", "corda", "lora_ga", "loftq")):
        return f"changed the base at initialisation ({init}), so its factors alone are not its update"
    if "layer_replication" in spec.traits:
        return "renumbers the layers (layer_replication)"
    return None
