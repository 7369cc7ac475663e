"""Trainable tokens: selected rows of an embedding, trained, replace the base's (PEFT
`tuners/trainable_tokens`).

The file calls them a delta, but they are the rows themselves.
"""

from __future__ import annotations

from adaptry.adapters.methods.method import Method, ModuleSize

METHOD = Method(
    name="trainable_tokens",
    title="Trainable tokens",
    key_patterns={},
    replaced={r"(?P<path>.+?)\.trainable_tokens_delta": "token_rows"},
    module_size=lambda shapes, config: ModuleSize(0, 0, 0),
)
