"""What must hold before an adapter may be baked into a base: said of headers, configs and records, all at once.

Whatever would be dropped, changed or added to the wrong thing in silence is refused here, with the way out.
"""

from __future__ import annotations

from dataclasses import dataclass

from adaptry.adapter.view import Adapter
from adaptry.checkpoint import Checkpoint
from adaptry.checks import check
from adaptry.errors import Refused, Unsupported
from adaptry.fingerprint import BaseRecord, TensorShape
from adaptry.fingerprinting.matching import match
from adaptry.methods import METHODS
from adaptry.placing import Placed, PlacedExtra, Placement, place

BAKEABLE = frozenset(
    ["rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "modules_to_save", "bias", "saved_embedding",
     "trainable_tokens"]
)  # fmt: skip
"""Traits that a merge knows how to bake."""
PLAIN = frozenset({"F32", "F16", "BF16"})
"""Dtypes that are baked."""

_NOT_MERGEABLE = {
    "alora": "it acts only after its invocation tokens: serve it with PEFT or an engine that knows aLoRA",
    "arrow": "it routes between adapters as it runs: merge one of them alone",
    "qalora": "it belongs to one quantised base: serve it on that",
    "layer_replication": "it repeats layers of the base, which PEFT's own merge gets wrong: serve it with PEFT",
    "lora_bias": "it needs a bias in the base where it has one: merge it with PEFT, which says whether there is",
}
# Encoder-decoders whose encoder and decoder embeddings stay one when the head gets its own (seen with T5).
_HEAD_APART = frozenset({"t5", "mt5"})


@dataclass(frozen=True, slots=True)
class Weighted:
    """An adapter, how strongly it counts, what the user called it, and the base it is known to be for, if any."""

    adapter: Adapter
    weight: float
    label: str
    base: BaseRecord | None = None


def fit(entry: Weighted, checkpoint: Checkpoint, base: BaseRecord) -> Placement:
    """Where the adapter's modules and extra weights lie. Raises `Unsupported`, `Refused`."""
    _refuse_variants(entry)
    placement = _places(entry, checkpoint, base)
    for placed in placement.placed:
        _check_shapes(entry, placed, checkpoint)
    report = check(entry.adapter, base, entry.adapter.config.base_name)
    if report.is_blocked:
        raise Refused(f"{entry.label}: {report.sentence()}")
    return placement


def check_base(entry: Weighted, base: BaseRecord, other_base: bool) -> list[str]:
    """What is to be told where `base` is not the one the adapter is for: shapes cannot tell that, weights can.

    Raises `Refused` unless the two are copies of the same weights, or `other_base` asks for it.
    """
    if entry.base is None or entry.base.id == base.id:
        return []
    found = match(entry.base, base)
    between = f"{entry.label} is for the base {entry.base.id.brief}, and this is {base.id.brief}"
    if found.level in ("exact", "same_weights", "cast"):
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise Refused(
            f"{between}: {found.evidence}. The shapes fit and the result would be wrong; merge into its own base, or "
            "say --other-base if another model is what you want"
        )
    return [f"{between}, another model of the same shapes, as --other-base allows"]


def check_untying(entry: Weighted, checkpoint: Checkpoint) -> None:
    """Raises `Unsupported` where giving lm_head weights of its own would untie other embeddings too (BART's)."""
    model_type = checkpoint.config.get("model_type")
    if checkpoint.config.get("is_encoder_decoder") and model_type not in _HEAD_APART:
        raise Unsupported(
            f"{entry.label} changes the head that a {model_type} ties to its encoder's and decoder's embeddings; to "
            "untie the head alone is not there yet: merge it with PEFT, which changes all of them"
        )


def _refuse_variants(entry: Weighted) -> None:
    spec, label = entry.adapter.spec, entry.label
    method = METHODS.get(spec.method)
    if method is None:
        raise Unsupported(
            f"{label} is {spec.method}, whose rules are not known here: use the library that trained it"
        )
    if reason := method.refuses(entry.adapter.config):
        raise Unsupported(f"{label}: {reason}")
    if spec.method != "lora" and not method.is_baked:
        raise Unsupported(f"{label} is {method.title}: {method.instead}")
    for trait in spec.traits:
        if trait in _NOT_MERGEABLE:
            raise Unsupported(f"{label} uses {trait}: {_NOT_MERGEABLE[trait]}")
    if traits := sorted(set(spec.traits) - BAKEABLE):
        raise Unsupported(
            f"{label} uses {', '.join(traits)}, which the streaming merge does not bake yet; "
            "merge it with PEFT's merge_and_unload"
        )
    if spec.unclaimed:
        raise Refused(
            f"{label} has {len(spec.unclaimed)} tensors that no rule knows (first: {spec.unclaimed[0]}); "
            "nothing is left out silently: save the adapter again from the trained model"
        )


def _places(entry: Weighted, checkpoint: Checkpoint, base: BaseRecord) -> Placement:
    spec, label = entry.adapter.spec, entry.label
    shapes = {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
    placement = place(spec, shapes, base.facts)
    if placement.missing:
        names = [module.path for module in placement.missing]
        raise Refused(
            f"{label}: {len(names)} of its {len(spec.modules)} modules are not in {checkpoint.folder} "
            f"(first: {names[0]}); is this the base it was trained on? `adaptry check` says more"
        )
    if not placement.placed and not placement.extras:
        raise Refused(f"{label} adapts no module, so merging it would change nothing")
    for placed in placement.placed:
        if spec.method == "lora" and placed.orientation not in ("linear", "conv1d"):
            raise Unsupported(f"{label}: {placed.module.path} is a {placed.orientation} layer; not baked yet")
    for extra in placement.extras:
        _check_extra(label, extra, checkpoint)
    return placement


def _check_shapes(entry: Weighted, placed: Placed, checkpoint: Checkpoint) -> None:
    """The update must have the weight's shape, and its two factors the same rank and a float dtype."""
    module, info = placed.module, checkpoint.tensors[placed.tensor]
    if not (module.fan_in and module.fan_out) or placed.orientation not in ("linear", "conv1d"):
        return
    wanted = (module.fan_out, module.fan_in)
    found = info.shape[::-1] if placed.orientation == "conv1d" else info.shape
    if found != wanted:
        raise Refused(
            f"{entry.label}: {module.path} changes a weight of {wanted[0]}×{wanted[1]}, and {placed.tensor} in "
            f"{checkpoint.folder} is {'×'.join(map(str, found))}: this is not the base it was trained on"
        )
    if info.dtype not in PLAIN:
        raise Unsupported(f"{placed.tensor} is {info.dtype}; weights are baked in F32, F16 and BF16")
    if entry.adapter.spec.method != "lora":
        return
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
            f"{entry.label}: the factors of {module.path} are {down.dtype} and {up.dtype}; F32, F16 and BF16 are baked"
        )


def _check_extra(label: str, extra: PlacedExtra, checkpoint: Checkpoint) -> None:
    """A full weight must have the shape of the one it replaces; token rows its width."""
    shape, base = extra.extra.shape, checkpoint.tensors[extra.tensor].shape
    fits = shape[1:] == base[1:] if extra.extra.kind == "token_rows" else shape == base
    if not fits:
        raise Refused(
            f"{label} brings a {extra.extra.target} of {list(shape)}, and {extra.tensor} in {checkpoint.folder} is "
            f"{list(base)}"
        )
