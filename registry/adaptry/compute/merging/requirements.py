"""Requirements on an adapter bound to a base before a merge, checked on headers.

Everything that would silently be dropped, changed or added to a wrong weight is refused here, with a remedy.
"""

from __future__ import annotations

from pathlib import Path

from adaptry.adapters.base_record import BaseRecord
from adaptry.adapters.header import PLAIN_FLOATS
from adaptry.adapters.methods import METHODS
from adaptry.bases.fingerprinting.match import match_bases
from adaptry.bases.hf_folder import HfCheckpoint
from adaptry.bases.module_map import ExtraTarget, ModuleMap, TargetTensor
from adaptry.checks.binding import BoundAdapter
from adaptry.checks.finding_text import fold_layer_numbers, format_count, shorten_names, verb_form
from adaptry.compute.merging.vocabulary import RowCounts
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core.errors import CheckFailed, InvalidConfig, Unsupported


def require_places(label: str, bound: BoundAdapter, checkpoint: HfCheckpoint) -> None:
    """Raises `CheckFailed`, `Unsupported` unless all parts have a place in the base."""
    if bound.precision_loss is not None:
        raise Unsupported(f"{label}: {bound.precision_loss}; save it again in the base's dtype")
    placement, modules = bound.module_map, bound.adapter.spec.modules
    if placement.missing_extras:
        targets = [extra.target for extra in placement.missing_extras]
        raise CheckFailed(
            f"{label} has {format_count(len(targets), 'whole weight')} that"
            f" {verb_form(len(targets), 'does', 'do')} not exist in {checkpoint.folder} (first:"
            f" {targets[0]}): load the base with the model class that was trained, save it, and merge into"
            " that"
        )
    if placement.missing:
        names = [module.path for module in placement.missing]
        reason = placement.reasons[names[0]]
        first = names[0] if reason.kind == "absent" else f"{names[0]}, as {reason.text}"
        raise CheckFailed(
            f"{label}: {len(names)} of its {format_count(len(modules), 'module')}"
            f" {verb_form(len(names), 'is', 'are')} not in {checkpoint.folder} (first: {first}); is this the"
            " base it was trained on? `adaptry check` shows more"
        )
    if not placement.placed and not placement.extras:
        raise CheckFailed(f"{label} adapts no module, so merging it would change nothing")
    for placed in placement.placed:
        _refuse_loaded(label, placed)
        require_orientation(label, placed)


def require_shapes(label: str, bound: BoundAdapter, checkpoint: HfCheckpoint, rows: RowCounts) -> None:
    """Raises `CheckFailed`, `InvalidConfig`, `Unsupported` unless all parts fit their weights. `rows` has the
    new number of rows of each growing tensor.
    """
    for extra in bound.module_map.extras:
        _check_extra(label, extra, checkpoint, rows)
    for placed in bound.module_map.placed:
        _check_shapes(label, placed, checkpoint, rows)
        _check_bias(label, bound, placed, checkpoint)


def check_base(entry: WeightedAdapter, base: BaseRecord, folder: Path, other_base: bool) -> list[str]:
    """Notes if `base`, which is in `folder`, is not the adapter's own base. Shapes alone do not show this.

    Raises `CheckFailed` unless the two are copies of the same weights, or `other_base` allows it.
    """
    if entry.base is None or entry.base.id == base.id:
        return []
    found = match_bases(entry.base, base)
    between = f"{entry.label} is for the base {entry.base.id.brief}, but this is {base.id.brief}"
    if found.is_same_model:
        return [f"{between}: {found.evidence}"]
    if not other_base:
        raise CheckFailed(
            f"{entry.label} is for the base {entry.base_label}, and the base in {folder} is another model:"
            f" {found.evidence}. The shapes fit, but the result would be wrong; merge into its own"
            " base, or pass --other-base if you want the other model"
        )
    return [f"{between}, another model with the same shapes, which was allowed"]


def require_orientation(label: str, target: TargetTensor) -> None:
    """Raises `Unsupported` for a matrix that may be stored as [out, in] or as [in, out]."""
    if target.certainty == "unknown":
        raise Unsupported(
            f"{label}: {target.module.path} is a square matrix of an unknown model type. It may be a"
            " torch.nn.Linear or transformers' Conv1D, which is stored transposed: merge it with PEFT, which"
            " knows the class"
        )


def orientation_notes(label: str, module_map: ModuleMap) -> tuple[str, ...]:
    """A note on matrices whose class is assumed."""
    assumed = [target.module.path for target in module_map.placed if target.certainty == "assumed"]
    if not assumed:
        return ()
    return (
        f"{label}: {shorten_names(fold_layer_numbers(assumed))}: no file shows whether these square matrices"
        " belong to a torch.nn.Linear or to transformers' Conv1D, which is stored transposed; they are merged"
        " as those of a torch.nn.Linear",
    )


def _refuse_loaded(label: str, target: TargetTensor) -> None:
    """Raises `Unsupported` for a weight that transformers creates only at load, so that no tensor can be
    changed.
    """
    if len(target.weight.parts) > 1:
        raise Unsupported(
            f"{label}: {target.module.path} is one weight in memory and {len(target.weight.parts)} on disk,"
            " which is not supported here; merge it with PEFT"
        )


def _check_shapes(label: str, target: TargetTensor, checkpoint: HfCheckpoint, rows: RowCounts) -> None:
    """Raises `CheckFailed`, `Unsupported` unless the update has the weight's shape, in a supported dtype."""
    module, info = target.module, checkpoint.tensors[target.tensor]
    if module.fan_in and module.fan_out and target.orientation in ("linear", "conv1d"):
        wanted = (module.fan_out, module.fan_in)
        found = (rows.get(target.tensor, info.shape[0]), *info.shape[1:])
        found = found[::-1] if target.orientation == "conv1d" else found
        if found != wanted:
            raise CheckFailed(
                f"{label}: {module.path} changes a weight of {wanted[0]}×{wanted[1]}, but"
                f" {target.tensor} in {checkpoint.folder} is {'×'.join(map(str, found))}: this is not the"
                " base it was trained on"
            )
    if info.dtype not in PLAIN_FLOATS:
        raise Unsupported(
            f"{target.tensor} is {info.dtype}, but only F32, F16 and BF16 weights can be merged"
        )


def _check_bias(label: str, bound: BoundAdapter, target: TargetTensor, checkpoint: HfCheckpoint) -> None:
    """Raises `CheckFailed` if a method adds to a bias that does not exist (rotating or scaling needs
    none).
    """
    method = METHODS[bound.adapter.spec.method]
    is_needed = method.weight is None or "B_bias" in target.module.tensors
    if method.bias is not None and is_needed and target.bias not in checkpoint.tensors:
        raise Unsupported(
            f"{label} adds to the bias of {target.module.path}, but {checkpoint.folder} has no {target.bias}:"
            " serve it unmerged with PEFT"
        )


def _check_extra(label: str, extra: ExtraTarget, checkpoint: HfCheckpoint, rows: RowCounts) -> None:
    """Raises an error unless a full weight has the shape of the weight that it replaces, and token rows have
    its width.
    """
    shape, base = extra.extra.shape, checkpoint.tensors[extra.tensor].shape
    base = (rows.get(extra.tensor, base[0]), *base[1:]) if base else base
    is_rows = extra.extra.kind == "token_rows"
    if is_rows and not extra.rows:
        raise InvalidConfig(f"adapter_config.json names no token indices for {extra.extra.target}")
    fits = shape[1:] == base[1:] if is_rows else shape == base
    if not fits and len(extra.weight.parts) > 1 and shape == extra.weight.shape:
        raise Unsupported(
            f"{label} has {extra.extra.target} as one tensor, which {checkpoint.folder} stores in"
            f" {len(extra.weight.parts)} tensors: merge it with PEFT (merge_and_unload), and save the result"
        )
    if not fits:
        raise CheckFailed(
            f"{label} has a {extra.extra.target} of {list(shape)}, but {extra.tensor} in"
            f" {checkpoint.folder} is {list(base)}: load the base with the model class that was trained, save"
            " it, and merge into that"
        )
