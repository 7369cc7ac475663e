"""Runtimes: whether an engine loads an adapter, whether it is served as it was trained, and what repairs it.

A verdict is a pure function of an adapter's headers and config, of its base's record where that is known, and of the
runtime. It is computed when it is asked for and kept nowhere, so no stored one can be out of date.
"""

from __future__ import annotations

from adaptry.checks.runtimes.rule import Engine, Subject, Verdict
from adaptry.checks.runtimes.runtime import Runtime
from adaptry.checks.runtimes.sizing import Plan, plan
from adaptry.checks.runtimes.table import ENGINES, parse_runtime
from adaptry.checks.runtimes.verdicts import verdict, verdicts

__all__ = [
    "ENGINES",
    "Engine",
    "Plan",
    "Runtime",
    "Subject",
    "Verdict",
    "parse_runtime",
    "plan",
    "verdict",
    "verdicts",
]
