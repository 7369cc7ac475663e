"""Runtimes: whether an engine loads an adapter, whether it serves it as trained, and how to repair it.

A verdict is a pure function of an adapter's headers and config, its base's record if that is known, and the
runtime. It is computed on demand and never stored, so it cannot be out of date.
"""

from __future__ import annotations

from adaptry.checks.runtimes.capacity import ServerPlan, build_server_plan
from adaptry.checks.runtimes.rule import CheckSubject, RuntimeRules, RuntimeVerdict
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.table import ENGINES, parse_runtime
from adaptry.checks.runtimes.verdicts import check_all_runtimes, check_runtime, other_version

__all__ = [
    "ENGINES",
    "CheckSubject",
    "Runtime",
    "RuntimeRules",
    "RuntimeVerdict",
    "ServerPlan",
    "build_server_plan",
    "check_all_runtimes",
    "check_runtime",
    "other_version",
    "parse_runtime",
]
