"""The result of a check: findings, each with a code, a severity, a reason and a remedy.

A report is a value that is stored with the version and shown everywhere. It decides only whether a finding
blocks.
"""

from __future__ import annotations

import re
from typing import Literal

from adaptry.core.display import format_count, html_table, short_repr, table_text
from adaptry.core.value import FrozenValue, value

Severity = Literal["blocks", "warns", "notes"]


@value
class Finding(FrozenValue):
    """One result of a check. `code` is stable, `reason` says what and where, `remedy` says what to do."""

    code: str
    severity: Severity
    reason: str
    remedy: str
    modules: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return short_repr(self, self.code, self.severity, self.reason)

    def __str__(self) -> str:
        return repr(self)

    def remedy_for(self, ref: str) -> str:
        """The remedy, with `ref` instead of REF in its commands."""
        return re.sub(r"\bREF\b", ref.replace("\\", r"\\"), self.remedy)


@value
class CheckReport(FrozenValue):
    """All findings about an adapter. `base` is the name or id of the base that it was checked on, or None."""

    findings: tuple[Finding, ...] = ()
    base: str | None = None

    @property
    def is_blocked(self) -> bool:
        """Whether a finding blocks the adapter: it cannot work unchanged."""
        return any(finding.severity == "blocks" for finding in self.findings)

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """The findings that block it."""
        return tuple(finding for finding in self.findings if finding.severity == "blocks")

    def __repr__(self) -> str:
        head = short_repr(self, self._title())
        rows = [(found.severity, f"{found.reason} [{found.code}]", found.remedy) for found in self.findings]
        return f"{head}\n{table_text(rows)}" if rows else head

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        rows = [(found.severity, f"{found.reason} [{found.code}]", found.remedy) for found in self.findings]
        return html_table(self._title(), ("", "reason", "remedy"), rows)

    def _title(self) -> str:
        where = f"against {self.base}" if self.base else "on its own"
        return f"{where}: {format_count(len(self.findings), 'finding')}"

    def sentence(self) -> str:
        """The blocking findings as one text, for an error message."""
        return "; ".join(f"{finding.reason} [{finding.code}] → {finding.remedy}" for finding in self.blocking)
