"""What PEFT puts into modules for which a file has nothing: values that change nothing, or random ones."""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig

_RANDOM = frozenset(["c3a", "fourierft", "tinylora", "unilora", "vblora"])
"""Methods that start a module changed: seen in PEFT 0.21, by leaving a layer out of each method's file."""
_FLAGS = (
    *("init_lora_weights", "init_weights", "init_ia3_weights", "init_psoft_weights", "init_lokr_weights"),
    *("init_embeddings", "init_config"),
)


def starts_changed(config: AdapterConfig, method: str) -> bool:
    """Whether a module without tensors in the file would be changed at random by PEFT's initial values."""
    if any(config.fields.get(flag) is False for flag in _FLAGS):
        return True
    return method in _RANDOM or (method == "hra" and config.flag("apply_GS"))
