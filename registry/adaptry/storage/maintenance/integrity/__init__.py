"""Is what is stored what was stored? `verify` looks at every row and every file; `mend` puts right what can be put right.

Bytes that no row names are no problem: a push that died left them, and a sweep collects them. A row whose bytes are missing or
changed is one, and so is a row that disagrees with what else is known of it. Both commands run beside pushes, sweeps and servers,
can be killed at any point, and can run twice at once. Nothing is ever deleted: damaged bytes are moved out of the way and kept.
"""

from __future__ import annotations

from adaptry.storage.catalog.audit import Problem
from adaptry.storage.maintenance.integrity.repair import Mended, mend
from adaptry.storage.maintenance.integrity.repair_plan import RepairPlan, plan
from adaptry.storage.maintenance.integrity.verification import verify

__all__ = ["Mended", "Problem", "RepairPlan", "mend", "plan", "verify"]
