"""A base's identity by content: its architecture, its config, and a sampled sketch of its weights.

The **id** is cheap (headers and 16 short reads a tensor) and independent of sharding, key order, file
metadata and of a task-model prefix on names. Two models with one id have the same shapes, the same
numbers that shapes cannot show (heads, rope), the same dtypes, and equal weights wherever we looked.
Full roots are evidence, added when someone has read everything.

This file holds the values; `adaptry.bases.fingerprinting` makes them from a checkpoint and compares them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest

Level = Literal["exact", "same_weights", "cast", "same_shapes", "different"]
"""How alike two bases are, strongest first; `cast` is a cast or quantised copy of the same weights."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class TensorShape(_Value):
    """A tensor of a base: dtype in safetensors' words, and shape."""

    dtype: str
    shape: tuple[int, ...]


class Sketch(_Value):
    """Up to 256 sampled elements of one tensor, as stored bytes in base64 (dtype from the base's tensors).

    Of a weight that bitsandbytes packed: two float32 for each of those elements, between which its value lay.
    """

    samples: str


class Vocabulary(_Value):
    """A tokenizer's ids: below `size`, a digest for each block of 1,024 of them; ids of the `added` tokens.

    The digests are `adaptry.bases.fingerprinting.vocabulary.block_digests`.
    """

    size: int
    blocks: tuple[str, ...]
    added: dict[str, int] = {}


class Roots(_Value):
    """Digests over every weight. `exact`: bytes with dtype; `canon`: the same over bfloat16 values, so that a
    float32 master and its bfloat16 cast agree (None where it was not computed)."""

    exact: Digest
    canon: Digest | None = None


class BaseRecord(_Value):
    """A base as a registry keeps it: enough to check adapters and plan merges without its weights.

    `tensors` and `sketches` are keyed by the name on disk; `facts` are the config fields that matter
    (model_type, heads, vocabulary, tying, …). The tokenizer and the template are no part of the id, and older
    records have no `vocabulary` and no `chat_template`. `file_hashes` are (path, size, sha256) when its
    weights are stored.
    """

    id: Digest
    architecture: Digest
    facts: dict[str, Any]
    tensors: dict[str, TensorShape]
    sketches: dict[str, Sketch]
    roots: Roots | None = None
    tokenizer: Digest | None = None
    vocabulary: Vocabulary | None = None
    chat_template: Digest | None = None
    file_hashes: dict[str, Digest] = {}

    @property
    def parameters(self) -> int:
        total = 0
        for tensor in self.tensors.values():
            count = 1
            for dim in tensor.shape:
                count *= dim
            total += count
        return total


class Match(_Value):
    """How alike two bases are, with the evidence in words."""

    level: Level
    evidence: str

    @property
    def is_same_model(self) -> bool:
        """Whether the weights are the same, or a cast or quantised copy: what is made for one fits both."""
        return self.level in ("exact", "same_weights", "cast")
