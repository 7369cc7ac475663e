"""A base's identity by content: its architecture, its config, and a sampled sketch of its weights.

The **id** is cheap (headers and 16 short reads per tensor). It does not depend on sharding, key order, file
metadata or a task model's prefix on names. Two models with one id have the same shapes, the same parameters
that shapes cannot show (heads, rope), the same dtypes, and equal weights at all sampled places. Digests over
all weights (`Roots`) are further evidence, added once the whole model has been read.

This file holds the values; `adaptry.bases.fingerprinting` makes them from a checkpoint and compares them.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest

Level = Literal["exact", "same_weights", "cast", "same_shapes", "different"]
"""How similar two bases are, most similar first; `cast` is a cast or quantised copy of the same weights."""


class _Value(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)


class TensorShape(_Value):
    """A tensor of a base: its dtype as safetensors writes it (`BF16`), and its shape."""

    dtype: str
    shape: tuple[int, ...]


class Sketch(_Value):
    """Up to 256 sampled elements of one tensor, as stored bytes in base64 (dtype from the base's tensors).

    For a weight that bitsandbytes packed: two float32 numbers for each element, the bounds of its original
    value.
    """

    samples: str


class Vocabulary(_Value):
    """A tokenizer's ids: the `size` of its vocabulary, a digest for each block of 1,024 ids, the ids of
    `added` tokens.

    The digests are `adaptry.bases.fingerprinting.vocabulary.block_digests`.
    """

    size: int
    blocks: tuple[str, ...]
    added: dict[str, int] = {}


class Tokenization(_Value):
    """A tokenizer's steps from text to ids: a digest for each of its `steps`, and how those `added` tokens
    that have options are found (`adaptry.bases.fingerprinting.tokenizer_steps`).
    """

    steps: dict[str, str]
    added: dict[str, str] = {}


class Roots(_Value):
    """Digests over all weights. `exact` is over their bytes and dtypes. `canon` is over their values in
    bfloat16, so that a float32 master and its bfloat16 cast agree (None if it was not computed).
    """

    exact: Digest
    canon: Digest | None = None


class BaseRecord(_Value):
    """A registry's record of a base: enough to check adapters and plan merges without its weights.

    The keys of `tensors` and `sketches` are names on disk. `facts` are the config fields that matter
    (model_type, heads, vocabulary, tying, …). The tokenizer and the chat template are not part of the id, and
    older records have no `vocabulary`, `tokenization` or `chat_template`. `file_hashes` lists (path, size,
    sha256) if the base's weights are stored.
    """

    id: Digest
    architecture: Digest
    facts: dict[str, Any]
    tensors: dict[str, TensorShape]
    sketches: dict[str, Sketch]
    roots: Roots | None = None
    tokenizer: Digest | None = None
    vocabulary: Vocabulary | None = None
    tokenization: Tokenization | None = None
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
    """The similarity of two bases, with the evidence in words."""

    level: Level
    evidence: str

    @property
    def is_same_model(self) -> bool:
        """Whether the weights are the same, or a cast or quantised copy: an adapter for one fits the
        other.
        """
        return self.level in ("exact", "same_weights", "cast")
