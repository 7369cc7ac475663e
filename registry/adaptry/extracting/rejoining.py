"""The extracted adapter merged into the base again, in memory, and compared with the fine-tune it came from."""

from __future__ import annotations

from adaptry.adapters.adapter import Adapter
from adaptry.core.errors import Refused, Unsupported
from adaptry.core.progress import Progress, no_progress
from adaptry.extracting.planning import ExtractPlan
from adaptry.merging.fitting import Weighted
from adaptry.merging.planning import plan as plan_merge
from adaptry.verifying.verdict import Verification
from adaptry.verifying.verification import verify


def rejoined(
    plan: ExtractPlan, adapter: Adapter, label: str, progress: Progress = no_progress
) -> Verification | str:
    """How far base plus adapter is from the fine-tune, tensor by tensor; or why the two cannot be merged."""
    try:
        merge = plan_merge(plan.base, [Weighted(adapter, 1.0, label)], resize_vocab=True)
    except (Refused, Unsupported) as error:
        return error.message
    return verify(merge, plan.tuned, is_measuring=True, progress=progress)
