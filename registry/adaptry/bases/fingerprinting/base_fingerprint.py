"""Computes a base's fingerprint from its headers, its config, and a few short reads of each tensor.

The id covers only properties that are the same in every file format of a model. Names are normalised, buffers
are dropped, the copy of a tied head counts as the embedding, a quantised weight and its scales count as one
weight, and config fields have one spelling. The rest is hashed as canonical JSON. So a base keeps its id if
it is resharded, renamed or saved by another version.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from adaptry.adapters.base_record import BaseRecord, Sketch, TensorShape
from adaptry.adapters.header import ReadAt
from adaptry.adapters.tensor_names import input_embedding, is_buffer, is_output_head, normalised
from adaptry.bases.fingerprinting.architecture import facts_of, identity_facts
from adaptry.bases.fingerprinting.packed_sketch import sketch_packed_weight
from adaptry.bases.fingerprinting.sketch import sketch_tensor
from adaptry.bases.fingerprinting.tokenizer import (
    template_of,
    tokenization_of,
    tokenizer_digest,
    vocabulary_of,
)
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.quantised import LogicalView, open_logical_view
from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid
from adaptry.core.strictjson import canonical

SCHEME = 1
"""The version of the id's definition. It is hashed too, since another definition gives other ids."""


def fingerprint(checkpoint: HfCheckpoint) -> BaseRecord:
    """The record of a base. Reads 16 short runs of each tensor; `full_hashes` computes full digests.

    Raises `Invalid` if the folder has only buffers and no weights, and `InvalidWeights` if a file changed
    during the reading.
    """
    view = open_logical_view(checkpoint)
    checkpoint = view.checkpoint
    weights = [name for name, info in checkpoint.tensors.items() if not is_buffer(name, info.shape)]
    if not weights:
        raise Invalid(f"{checkpoint.folder} has no weights in its safetensors files; is the export complete?")
    with _readers(checkpoint) as reader:
        copies = _tied_copies(view, weights, reader)
        weights = [name for name in weights if name not in copies]
        plain = normalised(weights)
        sketches = {name: _sketch(view, name, plain[name], reader) for name in sorted(weights)}
    facts = facts_of(checkpoint.config, _is_tied(checkpoint, weights, copies), view.method)
    tensors = {
        name: TensorShape(dtype=checkpoint.tensors[name].dtype, shape=checkpoint.tensors[name].shape)
        for name in sorted(weights)
    }
    return BaseRecord(
        id=_id(facts, tensors, sketches),
        architecture=_architecture(tensors),
        facts=facts,
        tensors=tensors,
        sketches=sketches,
        tokenizer=tokenizer_digest(checkpoint.folder),
        vocabulary=vocabulary_of(checkpoint.folder),
        tokenization=tokenization_of(checkpoint.folder),
        chat_template=template_of(checkpoint.folder),
    )


def check_identity(record: BaseRecord) -> None:
    """Raises `Invalid` if a record's id does not match its contents, so that no record can pose as
    another.
    """
    if record.sketches.keys() != record.tensors.keys():
        raise Invalid(
            "the base's record lacks sketches of some tensors; run `adaptry base add` to create a complete"
            " one"
        )
    found = _id(record.facts, record.tensors, record.sketches)
    if found != record.id or _architecture(record.tensors) != record.architecture:
        raise Invalid(
            f"the base's record has the id {record.id.brief}, but its contents give {found.brief}: it was"
            " changed, or written by another version; run `adaptry base add` with this version"
        )


def _sketch(view: LogicalView, name: str, plain: str, reader: Callable[[str], ReadAt]) -> Sketch:
    if packed := view.packed.get(name):
        return sketch_packed_weight(packed, plain, reader)
    return sketch_tensor(reader(name), view.checkpoint.tensors[name], plain)


def _architecture(tensors: Mapping[str, TensorShape]) -> Digest:
    plain = normalised(tensors)
    return Digest.of(canonical(sorted((plain[name], list(tensor.shape)) for name, tensor in tensors.items())))


def _id(
    facts: Mapping[str, Any], tensors: Mapping[str, TensorShape], sketches: Mapping[str, Sketch]
) -> Digest:
    plain = normalised(tensors)
    document = {
        "scheme": SCHEME,
        "architecture": str(_architecture(tensors)),
        "config": identity_facts(facts),
        "dtypes": {plain[name]: tensor.dtype for name, tensor in tensors.items()},
        "sketches": {plain[name]: found.samples for name, found in sketches.items()},
    }
    return Digest.of(canonical(document))


def _is_tied(checkpoint: HfCheckpoint, weights: list[str], copies: frozenset[str]) -> bool:
    """Whether input embedding and output head are one weight, according to the config, else to the files.

    Configs omit the field if it has their class's default, which differs between classes. A head that is
    stored with values that differ from the embedding's is a separate weight, whatever the config says:
    transformers 5 loads it as one.
    """
    written = checkpoint.config.get("tie_word_embeddings")
    has_own_head = not copies and any(is_output_head(name) for name in weights)
    if isinstance(written, bool):
        return written and not (has_own_head and input_embedding(weights))
    return not has_own_head


def _tied_copies(view: LogicalView, weights: list[str], reader: Callable[[str], ReadAt]) -> frozenset[str]:
    """Output heads that older tools stored although they are tied. They equal the embedding in all
    samples.
    """
    checkpoint = view.checkpoint
    weights = [name for name in weights if name not in view.packed]  # a packed head is never a copy
    if checkpoint.config.get("tie_word_embeddings") is False:
        return frozenset()
    embedding = input_embedding(weights)
    if embedding is None:
        return frozenset()
    info = checkpoint.tensors[embedding]
    place = sketch_tensor(reader(embedding), info, embedding)
    return frozenset(
        name
        for name in weights
        if is_output_head(name)
        and name != embedding
        and (checkpoint.tensors[name].dtype, checkpoint.tensors[name].shape) == (info.dtype, info.shape)
        and sketch_tensor(reader(name), checkpoint.tensors[name], embedding) == place
    )


@contextlib.contextmanager
def _readers(checkpoint: HfCheckpoint) -> Iterator[Callable[[str], ReadAt]]:
    """Positional reads of the file that has a tensor; each file is opened once."""
    with contextlib.ExitStack() as stack:
        files = {shard: stack.enter_context(checkpoint.open_shard(shard)) for shard in checkpoint.shards}
        yield lambda tensor: files[checkpoint.shard_of[tensor]]
