"""`adaptry repair`: repairs what `verify` found in an embedded registry, from sources with intact copies.

Can be killed at any point, and can run twice at once, beside pushes, sweeps and servers. Nothing is deleted:
damaged files are set aside and kept.
"""

from __future__ import annotations

from adaptry.operations.repair.plan import RegistryRepairPlan, plan_repair
from adaptry.operations.repair.repair import RepairResult, repair_registry

__all__ = ["RegistryRepairPlan", "RepairResult", "plan_repair", "repair_registry"]
