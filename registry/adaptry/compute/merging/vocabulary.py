"""A larger vocabulary: an adapter whose embeddings have more rows than the base's.

Tokens were added before training, so the result has another vocabulary and config than the base. This is done
only on request.
"""

from __future__ import annotations

from collections.abc import Mapping

from adaptry.adapters.tensor_names import input_embedding, is_output_head
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap
from adaptry.core.errors import CheckFailed, Unsupported

RowCounts = Mapping[str, int]
"""The new numbers of rows, for tensors of the base that grow."""


def is_larger_vocabulary(extra: ExtraTarget, checkpoint: HfCheckpoint) -> bool:
    """Whether a full weight is an embedding or head with the base's width and more rows."""
    base = checkpoint.tensors[extra.tensor].shape
    brought = extra.extra.shape
    is_vocabulary = extra.tensor == input_embedding(checkpoint.tensors) or is_output_head(extra.tensor)
    is_whole = extra.extra.kind in ("module", "saved_embedding")
    return is_whole and is_vocabulary and brought[1:] == base[1:] and brought[0] > base[0]


def new_rows(label: str, module_map: ModuleMap, checkpoint: HfCheckpoint, is_asked: bool) -> RowCounts:
    """The rows of each growing tensor. Raises `CheckFailed` if this was not requested, or if only one side
    grows.
    """
    rows = {
        extra.tensor: extra.extra.shape[0]
        for extra in module_map.extras
        if is_larger_vocabulary(extra, checkpoint)
    }
    if not rows:
        return rows
    tensor, count = next(iter(rows.items()))
    base = checkpoint.tensors[tensor].shape[0]
    if not is_asked:
        raise CheckFailed(
            f"{label} has {tensor} with {count:,} rows, but the base has {base:,}: tokens were added before"
            " training. Pass --resize-vocab for a result with the larger vocabulary, and use the"
            " adapter's tokenizer with it"
        )
    sides = {name for name in checkpoint.tensors if is_output_head(name)}
    sides |= {name for name in (input_embedding(checkpoint.tensors),) if name}
    for side in sorted(sides):
        if rows.get(side, checkpoint.tensors[side].shape[0]) != count:
            raise CheckFailed(
                f"{label} has {tensor} with {count:,} rows but not for {side}, which would not"
                " match: save the adapter again with save_embedding_layers=True or, where it adapts an"
                " embedding, which PEFT then saves alone,"
                " save the base with its larger vocabulary and merge into that"
            )
    biases = {f"{side.removesuffix('.weight')}.bias" for side in sides} & checkpoint.tensors.keys()
    if biases:
        raise Unsupported(
            f"{min(biases)} has a value for each token, but {label} has none for the new tokens"
        )
    return rows


def check_single_input(label: str, weight: float, inputs: int) -> None:
    """Raises `Unsupported` unless the adapter is merged alone with weight 1: scaled new rows have no
    meaning.
    """
    if inputs > 1 or weight != 1.0:
        raise Unsupported(
            f"{label} adds tokens to the vocabulary, so it can be merged only alone and with weight 1: merge"
            " it first,"
            " and other adapters into the result"
        )
