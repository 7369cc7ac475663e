"""Everything a merge decides, before a weight is read.

`plan` takes headers and configs and gives output files as lists of pieces: bytes to copy, weights to bake.
Sizes, names and dtypes of the result are known here, and whatever does not fit fails here or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adaptry.adapter.header import FLOATS
from adaptry.adapter.view import Adapter
from adaptry.checkpoint import Checkpoint
from adaptry.digest import Digest
from adaptry.errors import Refused, Unsupported
from adaptry.fingerprint import TensorShape
from adaptry.fingerprinting import fingerprint
from adaptry.merging.layout import OutputFile, Piece, Update, lay_out
from adaptry.merging.recipe import Dtype
from adaptry.naming import is_output_head
from adaptry.placing import Placed, place

BAKEABLE = frozenset({"rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"})
"""Traits of a LoRA that do not change how it is added to a Linear's or Conv1D's weight."""
PLAIN = frozenset({"F32", "F16", "BF16"})

_HEAD = "lm_head.weight"
_UNTIED = (
    "the base ties lm_head to its embeddings and an adapter changes lm_head alone: the result gets an "
    "lm_head of its own, so that it answers as the adapter does"
)


@dataclass(frozen=True, slots=True)
class Weighted:
    """An adapter, how strongly it counts, what the user called it, and the id of the base it is known to be for."""

    adapter: Adapter
    weight: float
    label: str
    base: Digest | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done. `base` is the base's id; `notes` are sentences for the reader; `is_untied`: the result has
    an lm_head of its own."""

    checkpoint: Checkpoint
    base: Digest
    inputs: tuple[Weighted, ...]
    files: tuple[OutputFile, ...]
    dtype: Dtype | None
    is_untied: bool
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def changed(self) -> Iterator[Piece]:
        """The pieces whose bytes are not the base's: baked, or cast."""
        return (piece for file in self.files for piece in file.pieces if not piece.is_copy)

    @property
    def baked(self) -> int:
        """How many weights change."""
        return sum(bool(piece.updates) for file in self.files for piece in file.pieces)


def plan(
    checkpoint: Checkpoint,
    inputs: Sequence[Weighted],
    *,
    dtype: Dtype | None = None,
    max_shard_size: int | None = None,
) -> Plan:
    """How `inputs` are baked into `checkpoint`.

    Raises `Unsupported` (a method or variant that is not baked yet, a quantised base) and `Refused` (modules
    or shapes that do not fit); each names what, where and the way out.
    """
    _refuse_quantized(checkpoint)
    if dtype and (odd := _not_plain(checkpoint)):
        raise Unsupported(
            f"--dtype casts F32, F16 and BF16 weights; {odd} is {checkpoint.tensors[odd].dtype}"
        )
    base = fingerprint(checkpoint)
    updates: dict[str, list[Update]] = {}
    heads: dict[str, list[Update]] = {}  # by the embedding they are tied to
    transposed: set[str] = set()
    is_untied = False
    for entry in inputs:
        for placed in _places(entry, checkpoint, base.facts):
            _check_fit(entry, placed, checkpoint)
            update = Update(entry.adapter, placed.module, placed.module.scale * entry.weight)
            shares = placed.tied and not is_output_head(placed.tensor)
            (heads if shares else updates).setdefault(placed.tensor, []).append(update)
            is_untied |= placed.tied
            if placed.orientation == "conv1d":
                transposed.add(placed.tensor)
    drafts: list[Piece] = []
    for name in _in_file_order(checkpoint):
        drafts.append(_draft(name, name, checkpoint, dtype, updates.get(name, ()), name in transposed))
        if name in heads:
            drafts.append(_draft(_HEAD, name, checkpoint, dtype, heads[name], False))
    files = lay_out(checkpoint.shards, drafts, max_shard_size)
    notes = [_UNTIED] if is_untied else []
    notes += [_foreign(entry, base.id) for entry in inputs if entry.base not in (None, base.id)]
    return Plan(checkpoint, base.id, tuple(inputs), files, dtype, is_untied, tuple(notes))


def _foreign(entry: Weighted, base: Digest) -> str:
    """What shapes cannot tell."""
    return (
        f"{entry.label} is for the base {entry.base}, and this is {base}: right for a cast copy of that base, "
        "wrong for another model of the same shapes"
    )


def _places(entry: Weighted, checkpoint: Checkpoint, facts: Mapping[str, Any]) -> tuple[Placed, ...]:
    """Where the adapter's modules lie, after refusing whatever would be dropped or changed in silence.

    (`Any`: the base's config facts.)
    """
    spec, label = entry.adapter.spec, entry.label
    if spec.method != "lora":
        raise Unsupported(
            f"{label} is {spec.method}; merging into weights is there for LoRA so far. Serve it with its own library"
        )
    if traits := sorted(set(spec.traits) - BAKEABLE):
        raise Unsupported(
            f"{label} uses {', '.join(traits)}, which the streaming merge does not bake yet; "
            "merge it with PEFT's merge_and_unload"
        )
    if spec.extras or spec.unclaimed:
        named = [extra.tensor for extra in spec.extras] + list(spec.unclaimed)
        raise Refused(
            f"{label} has {len(named)} tensors that a LoRA merge would drop (first: {named[0]}); "
            "nothing is left out silently: remove them, or merge with PEFT"
        )
    shapes = {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
    placement = place(spec, shapes, facts)
    if placement.missing:
        names = [module.path for module in placement.missing]
        raise Refused(
            f"{label}: {len(names)} of its {len(spec.modules)} modules are not in {checkpoint.folder} "
            f"(first: {names[0]}); is this the base it was trained on? `adaptry check` says more"
        )
    if not placement.placed:
        raise Refused(f"{label} adapts no module, so merging it would change nothing")
    for placed in placement.placed:
        if placed.orientation not in ("linear", "conv1d"):
            raise Unsupported(f"{label}: {placed.module.path} is a {placed.orientation} layer; not baked yet")
    return placement.placed


def _check_fit(entry: Weighted, placed: Placed, checkpoint: Checkpoint) -> None:
    """The update must have the weight's shape, and its two factors the same rank and a float dtype."""
    module, info = placed.module, checkpoint.tensors[placed.tensor]
    wanted = (module.fan_out, module.fan_in)
    found = info.shape[::-1] if placed.orientation == "conv1d" else info.shape
    if found != wanted:
        raise Refused(
            f"{entry.label}: {module.path} changes a weight of {wanted[0]}×{wanted[1]}, and {placed.tensor} in "
            f"{checkpoint.folder} is {'×'.join(map(str, found))}: this is not the base it was trained on"
        )
    if info.dtype not in PLAIN:
        raise Unsupported(f"{placed.tensor} is {info.dtype}; weights are baked in F32, F16 and BF16")
    down, up = (entry.adapter.tensors[module.tensors[role]] for role in ("A", "B"))
    if not (down.numel and up.numel):
        raise Refused(f"{entry.label}: the factors of {module.path} are empty, so it was never trained")
    if down.shape != (module.rank, module.fan_in) or up.shape != (module.fan_out, module.rank):
        raise Refused(
            f"{entry.label}: the factors of {module.path} do not multiply: lora_B {list(up.shape)} by "
            f"lora_A {list(down.shape)}"
        )
    if not {down.dtype, up.dtype} <= PLAIN:
        raise Unsupported(
            f"{entry.label}: the factors of {module.path} are {down.dtype} and {up.dtype}, not floats"
        )


def _refuse_quantized(checkpoint: Checkpoint) -> None:
    config = checkpoint.config.get("quantization_config")
    if config:
        method = (
            config.get("quant_method", "a quantisation") if isinstance(config, dict) else "a quantisation"
        )
        raise Unsupported(
            f"{checkpoint.folder} is quantised ({method}), and a merge into quantised weights would not be what was "
            "trained: merge into the unquantised base, then quantise the result"
        )


def _not_plain(checkpoint: Checkpoint) -> str | None:
    floats = ((name, info.dtype) for name, info in checkpoint.tensors.items() if info.dtype in FLOATS)
    return next((name for name, dtype in floats if dtype not in PLAIN), None)


def _in_file_order(checkpoint: Checkpoint) -> Iterable[str]:
    for header in checkpoint.shards.values():
        yield from header.tensors


def _draft(
    name: str,
    source: str,
    checkpoint: Checkpoint,
    dtype: Dtype | None,
    updates: Sequence[Update],
    is_transposed: bool,
) -> Piece:
    """A piece that has no place in a file yet."""
    info = checkpoint.tensors[source]
    kept = dtype is None or info.dtype not in FLOATS
    return Piece(
        name=name,
        shard=checkpoint.shard_of[source],
        source=info,
        dtype=info.dtype if kept else str(dtype),
        offset=0,
        updates=tuple(updates),
        is_transposed=is_transposed,
    )
