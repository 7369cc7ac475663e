"""The two ends of a tied embedding: one tensor on disk that the model reads as embedding and as output head.

A live adapter may change one end alone, and PEFT's merge then writes both, so that the merged model answers
otherwise than the adapter did. Here each end gets what the live adapter does to it; where the two come to differ, the
result has a head of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.checkpoint import Checkpoint
from adaptry.errors import Unsupported
from adaptry.merging.fitting import Weighted
from adaptry.naming import INPUT_EMBEDDINGS, input_embedding, is_output_head
from adaptry.placing import Placed, PlacedExtra, Placement

# Encoder-decoders whose encoder and decoder embeddings stay one when the head gets its own (seen with T5).
_HEAD_APART = frozenset({"t5", "mt5"})
# Models that have embeddings and no output head, whatever their config says of tying (BERT's says it always).
_HEADLESS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)


@dataclass(frozen=True, slots=True)
class End:
    """A tensor of the result: the base's `tensor`, or the head that a tied model reads from it."""

    tensor: str
    is_head: bool = False


class Ends:
    """Which ends there are, and whether they have come apart."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._stored_head = next((name for name in checkpoint.tensors if is_output_head(name)), None)
        self._stored_embedding = input_embedding(checkpoint.tensors)
        listed = checkpoint.config.get("architectures")
        architectures = listed if isinstance(listed, list) else []
        self._has_head = not any(str(name).endswith(_HEADLESS) for name in architectures)
        self._tied: set[str] = set()
        self.is_untied = False

    def stored(self, tensor: str) -> End:
        """The end that is in the base's files under its own name."""
        return End(tensor)

    def both(self, tensor: str) -> tuple[End, ...]:
        """The ends of a tied `tensor`, for a change of both."""
        self._tied.add(tensor)
        return self._embedding(tensor), self._head(tensor)

    def one(self, entry: Weighted, tensor: str, is_head: bool) -> tuple[End]:
        """One end of a tied `tensor`, for a change of it alone. Raises `Unsupported`."""
        _check_untying(entry, self._checkpoint, is_head)
        self._tied.add(tensor)
        self.is_untied = self._has_head
        return (self._head(tensor) if is_head else self._embedding(tensor),)

    def new_head(self, tensor: str) -> End | None:
        """The head that the result gets beside `tensor`, where the ends came apart and the base stores none."""
        is_new = self.is_untied and self._stored_head is None and tensor in self._tied
        return End(tensor, is_head=True) if is_new else None

    def _embedding(self, tensor: str) -> End:
        return End(self._stored_embedding or tensor)

    def _head(self, tensor: str) -> End:
        return End(tensor, is_head=True) if self._stored_head is None else End(self._stored_head)


def ends_of_extra(entry: Weighted, extra: PlacedExtra, ends: Ends) -> tuple[End, ...]:
    """What a full weight replaces. PEFT copies a module of `modules_to_save` off the tie; the rest is written through it."""
    if not extra.tied:
        return (ends.stored(extra.tensor),)
    if extra.extra.kind == "module" and not entry.adapter.config.flag("ensure_weight_tying"):
        return ends.one(entry, extra.tensor, is_output_head(extra.extra.target))
    return ends.both(extra.tensor)


def ends_of_module(entry: Weighted, placed: Placed, placement: Placement, ends: Ends) -> tuple[End, ...]:
    """What an update changes. With `ensure_weight_tying` the embedding's is both's, and the head's says it again."""
    if not placed.tied:
        return (ends.stored(placed.tensor),)
    is_named_embedding = placed.module.path.rpartition(".")[2] in INPUT_EMBEDDINGS
    is_head = placed.module.kind != "embedding" and not is_named_embedding
    if entry.adapter.config.flag("ensure_weight_tying"):
        has_embedding = any(other.tied and other.module.kind == "embedding" for other in placement.placed)
        if has_embedding:
            return () if is_head else ends.both(placed.tensor)
    return ends.one(entry, placed.tensor, is_head)


def _check_untying(entry: Weighted, checkpoint: Checkpoint, is_head: bool) -> None:
    """Raises `Unsupported` where giving one end weights of its own would untie other embeddings too (BART's)."""
    model_type = checkpoint.config.get("model_type")
    if checkpoint.config.get("is_encoder_decoder") and not (is_head and model_type in _HEAD_APART):
        end = "head" if is_head else "embedding"
        raise Unsupported(
            f"{entry.label} changes the {end} alone, which a {model_type} ties to its encoder's and decoder's "
            "embeddings and its head; to untie one of them is not there yet: merge it with PEFT, which changes all "
            "of them"
        )
