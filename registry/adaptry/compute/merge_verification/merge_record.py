"""Reads a merged checkpoint's `adaptry_merge.json`, and checks that the inputs are those that the record
names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from adaptry.compute.merging.plan import MergePlan
from adaptry.compute.merging.record import RECORD_FILE, MergeRecord
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core import strictjson
from adaptry.core.errors import CheckFailed, InvalidConfig, NotFound

_LIMITS = strictjson.JsonLimits(size=16 << 20, depth=16, nodes=500_000)


def read_merge_record(folder: Path) -> MergeRecord:
    """Reads the record. Raises `NotFound` if the record is missing, and `InvalidConfig` if it is not a valid
    record.
    """
    path = folder / RECORD_FILE
    if not path.is_file():
        raise NotFound(f"{folder} has no {RECORD_FILE} with its inputs: pass them with --base and --adapter")
    document = strictjson.loads(path.read_bytes(), _LIMITS, str(path))
    try:
        return MergeRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidConfig(
            f"{path} is not a valid record ({field}: {first['msg']}); pass --base and --adapter instead"
        ) from None


def check_inputs(record: MergeRecord, inputs: Sequence[WeightedAdapter]) -> None:
    """Raises `CheckFailed` if an adapter is no longer the merged one: names can move, digests cannot."""
    for named, entry in zip(record.inputs, inputs, strict=True):
        found = entry.adapter.weights_digest()
        if found != named.weights:
            raise CheckFailed(
                f"{entry.label} has the weights {found.brief}, but the merged adapter had"
                f" {named.weights.brief}:"
                " it has changed since. Pass the merged adapter with --base and --adapter"
            )


def check_base(record: MergeRecord, plan: MergePlan) -> None:
    """Raises `CheckFailed` if the merge was into a different base."""
    if plan.base != record.base:
        raise CheckFailed(
            f"{plan.checkpoint.folder} is the base {plan.base.brief}, but the merge was into"
            f" {record.base.brief}: pass that one with --base and --adapter"
        )
