"""Prefixes: keys and values before those of the input in every attention layer; the base's weights are
unchanged.

Prefix tuning (arXiv 2101.00190; PEFT `tuners/prefix_tuning`, whose projection runs once, when it is saved)
and Cartridges (2506.06266; PEFT `tuners/cartridge`) save one matrix. It has a row for each virtual token, and
each row has, for each layer, a key and a value for every kv head.
"""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, Shapes
from adaptry.adapters.methods.prompts import PREFIX, size_without_modules

_HINT = (
    "its keys and values precede the input's in every attention layer, and no weight can represent them:"
    " serve it unmerged, with PEFT's PeftModel.from_pretrained, or train a LoRA"
)


def _tokens(config: AdapterConfig, shapes: Shapes) -> int | None:
    return shapes.get("prompt", (0,))[0] or None


def _method(name: str, title: str) -> Method:
    return Method(
        name=name,
        title=title,
        key_patterns={},
        module_size=size_without_modules,
        shared={"prompt_embeddings": "prompt"},
        required_shared=lambda config: ("prompt",),
        prefix=PREFIX,
        unmergeable_hint=_HINT,
        virtual_tokens=_tokens,
    )


PREFIX_TUNING, CARTRIDGE = _method("prefix_tuning", "prefix tuning"), _method("cartridge", "Cartridge")
METHODS = (PREFIX_TUNING, CARTRIDGE)
