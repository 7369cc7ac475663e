"""What must hold before an adapter may be merged into a base: of headers, configs, records, all at once.

Whatever would be dropped, changed or added to the wrong thing in silence is refused here, with the way out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord, TensorShape
from adaptry.adapters.formats import PEFT
from adaptry.adapters.methods import METHODS
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.checks import check
from adaptry.checks.binding import bind, require_whole
from adaptry.compute.foreign_layouts.to_peft import open_as_peft, refuse_other_layout
from adaptry.compute.merging.lora_fitting import check_lora, notes_of_lora, placed_for_lora
from adaptry.compute.merging.vocabulary import RowCounts, new_rows
from adaptry.core.errors import CheckFailed, Unsupported

PLAIN = frozenset({"F32", "F16", "BF16"})
"""Dtypes that are merged."""

_TOLD = frozenset(
    [
        "keys_unknown",
        "layers_uncovered",
        "targets_without_tensors",
        "saved_modules_without_tensors",
        "merge_differs",
    ]
)
"""Findings that block nothing and mean that the result is not all that was trained."""


@dataclass(frozen=True, slots=True)
class WeightedAdapter:
    """An adapter, how strongly it counts, what the user called it, and the base it is for, if known.

    `original`: the adapter as its own tool wrote it, where `adapter` is a view of it in PEFT's layout.
    """

    adapter: Adapter
    weight: float
    label: str
    base: BaseRecord | None = None
    original: Adapter | None = None

    @property
    def named(self) -> Adapter:
        """The adapter as a record names it."""
        return self.original or self.adapter


@dataclass(frozen=True, slots=True)
class FitResult:
    """Where an adapter's modules and extra weights lie, which tensors get more rows, and what is to be told:
    what the config says was trained and the file has not, what its variant means for the result.
    """

    placement: ModuleMap
    rows: RowCounts
    notes: tuple[str, ...]


def fit(
    entry: WeightedAdapter, checkpoint: HfCheckpoint, base: BaseRecord, resize_vocab: bool = False
) -> FitResult:
    """How the adapter lies in the base. Raises `Unsupported`, `CheckFailed`, and `MissingDependency` (a
    package of its method).
    """
    refuse_unmergeable(entry)
    METHODS[entry.adapter.spec.method].check_installed()
    placement = _places(entry, checkpoint, base)
    rows = new_rows(entry.label, placement, checkpoint, resize_vocab)
    for extra in placement.extras:
        _check_extra(entry.label, extra, checkpoint, rows)
    for placed in placement.placed:
        _check_shapes(entry, placed, checkpoint, rows)
        _check_bias(entry, placed, checkpoint)
    report = check(entry.adapter, base, entry.adapter.config.base_name)
    if report.is_blocked:
        raise CheckFailed(f"{entry.label}: {report.sentence()}")
    notes = [f"{entry.label}: {found.reason}" for found in report.findings if found.code in _TOLD]
    if entry.adapter.spec.method == "lora":
        notes += notes_of_lora(entry.label, entry.adapter, placement)
    return FitResult(placement, rows, tuple(notes))


def check_base(entry: WeightedAdapter, base: BaseRecord, other_base: bool) -> list[str]:
    """What to tell where `base` is not the one the adapter is for: shapes cannot tell that, weights can.

    Raises `CheckFailed` unless the two are copies of the same weights, or `other_base` asks for it.
    """
    if entry.base is None or entry.base.id == base.id:
        return []
    found = match_bases(entry.base, base)
    between = f"{entry.label} is for the base {entry.base.id.brief}, and this is {base.id.brief}"
    if found.is_same_model:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{between}: {found.evidence}. The shapes fit and the result would be wrong; merge into its own"
            " base, or say --other-base if another model is what you want"
        )
    return [f"{between}, another model of the same shapes, as --other-base allows"]


def refuse_unmergeable(entry: WeightedAdapter) -> None:
    """What its files alone say against merging it. Raises `Unsupported`, `CheckFailed`."""
    spec, label = entry.adapter.spec, entry.label
    if entry.adapter.format is not PEFT:
        refuse_other_layout(entry.adapter, label)
        return
    method = METHODS.get(spec.method)
    if method is None:
        raise Unsupported(
            f"{label} is {spec.method}, whose rules are not known here: use the library that trained it"
        )
    if reason := method.unmergeable_reason(entry.adapter.config):
        raise Unsupported(f"{label}: {reason}")
    if not method.is_mergeable:
        raise Unsupported(f"{label} is {method.title}: {method.unmergeable_hint}")


def seen_as_peft(entry: WeightedAdapter, base: BaseRecord) -> tuple[WeightedAdapter, tuple[str, ...]]:
    """`entry` in PEFT's layout, in which everything here is merged, and what is to be told of that. Raises as
    `open_as_peft`.
    """
    if entry.adapter.format is PEFT:
        return entry, ()
    seen = open_as_peft(entry.adapter, entry.label, base)
    return replace(entry, adapter=seen.adapter, original=entry.adapter), seen.notes


def _places(entry: WeightedAdapter, checkpoint: HfCheckpoint, base: BaseRecord) -> ModuleMap:
    spec, label = entry.adapter.spec, entry.label
    shapes = {
        name: TensorShape(dtype=info.dtype, shape=info.shape) for name, info in checkpoint.tensors.items()
    }
    bound = bind(entry.adapter, base.model_copy(update={"tensors": shapes}), layers_repeated=True)
    require_whole(label, bound)
    placement = bound.module_map
    if placement.missing_extras:
        targets = [extra.target for extra in placement.missing_extras]
        raise CheckFailed(
            f"{label} brings {len(targets)} whole weights that {checkpoint.folder} has no place for (first:"
            f" {targets[0]}): load the base as the model that was trained, save that, and merge into it"
        )
    if placement.missing:
        names = [module.path for module in placement.missing]
        reason = placement.reasons[names[0]]
        first = names[0] if reason.kind == "absent" else f"{names[0]}, as {reason.text}"
        raise CheckFailed(
            f"{label}: {len(names)} of its {len(spec.modules)} modules are not in {checkpoint.folder} "
            f"(first: {first}); is this the base it was trained on? `adaptry check` says more"
        )
    if not placement.placed and not placement.extras:
        raise CheckFailed(f"{label} adapts no module, so merging it would change nothing")
    for placed in placement.placed:
        _refuse_loaded(label, placed)
    if spec.method != "lora":
        return placement
    config = entry.adapter.config
    return replace(placement, placed=tuple(placed_for_lora(placed, config) for placed in placement.placed))


def _refuse_loaded(label: str, target: TargetTensor) -> None:
    """What transformers makes only as it loads the files has no tensor to change. Raises `Unsupported`."""
    if len(target.weight.parts) > 1:
        raise Unsupported(
            f"{label}: {target.module.path} is one weight in memory and {len(target.weight.parts)} on disk,"
            " which is not merged here; merge it with PEFT"
        )


def _check_shapes(
    entry: WeightedAdapter, target: TargetTensor, checkpoint: HfCheckpoint, rows: RowCounts
) -> None:
    """The update must have the weight's shape, and the weight a dtype that is merged."""
    module, info = target.module, checkpoint.tensors[target.tensor]
    if module.fan_in and module.fan_out and target.orientation in ("linear", "conv1d"):
        wanted = (module.fan_out, module.fan_in)
        found = (rows.get(target.tensor, info.shape[0]), *info.shape[1:])
        found = found[::-1] if target.orientation == "conv1d" else found
        if found != wanted:
            raise CheckFailed(
                f"{entry.label}: {module.path} changes a weight of {wanted[0]}×{wanted[1]}, and"
                f" {target.tensor} in {checkpoint.folder} is {'×'.join(map(str, found))}: this is not the"
                " base it was trained on"
            )
    if info.dtype not in PLAIN:
        raise Unsupported(f"{target.tensor} is {info.dtype}; weights are merged in F32, F16 and BF16")
    if entry.adapter.spec.method == "lora":
        shape = (rows.get(target.tensor, info.shape[0]), *info.shape[1:])
        check_lora(entry.label, entry.adapter, target, shape)


def _check_bias(entry: WeightedAdapter, target: TargetTensor, checkpoint: HfCheckpoint) -> None:
    """A method that adds to a bias needs one; one that only turns or scales it does not."""
    method = METHODS[entry.adapter.spec.method]
    bias = f"{target.tensor.removesuffix('.weight')}.bias"
    is_needed = method.weight is None or "B_bias" in target.module.tensors
    if method.bias is not None and is_needed and bias not in checkpoint.tensors:
        raise Unsupported(
            f"{entry.label} adds to the bias of {target.module.path}, and {checkpoint.folder} has no {bias}: "
            "serve it unmerged with PEFT"
        )


def _check_extra(label: str, extra: ExtraTarget, checkpoint: HfCheckpoint, rows: RowCounts) -> None:
    """A full weight must have the shape of the one it replaces; token rows its width."""
    shape, base = extra.extra.shape, checkpoint.tensors[extra.tensor].shape
    base = (rows.get(extra.tensor, base[0]), *base[1:]) if base else base
    fits = shape[1:] == base[1:] if extra.extra.kind == "token_rows" else shape == base
    if not fits:
        raise CheckFailed(
            f"{label} brings a {extra.extra.target} of {list(shape)}, and {extra.tensor} in"
            f" {checkpoint.folder} is {list(base)}: load the base as the model that was trained, save that,"
            " and merge into it"
        )
