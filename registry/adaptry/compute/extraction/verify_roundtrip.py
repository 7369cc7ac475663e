"""The extracted adapter merged into its base again, in memory, and compared with its fine-tune."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.compute.extraction.plan import ExtractPlan
from adaptry.compute.merge_verification.verdict import Verification
from adaptry.compute.merge_verification.verification import verify
from adaptry.compute.merging.plan import plan_merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.core.errors import CheckFailed, Unsupported
from adaptry.core.progress import Progress, no_progress


def verify_extraction(
    plan: ExtractPlan, adapter: Adapter, label: str, progress: Progress = no_progress
) -> Verification | str:
    """The difference, by tensor, between base plus adapter and the fine-tune; or why base and adapter cannot
    be merged.
    """
    try:
        merge = plan_merge(plan.base, [WeightedAdapter(adapter, 1.0, label)], resize_vocab=True)
    except (CheckFailed, Unsupported) as error:
        return error.message
    return verify(merge, plan.tuned, is_measuring=True, progress=progress)
