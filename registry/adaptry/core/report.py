"""What a check says: findings, each with a code, a severity, a reason and a remedy.

A report is a value that is stored with the version and shown everywhere; it decides nothing but whether
something blocks.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Severity = Literal["blocks", "warns", "notes"]


class Finding(BaseModel):
    """One thing found. `code` is stable; `reason` says what and where; `remedy` what to do."""

    model_config = ConfigDict(frozen=True)

    code: str
    severity: Severity
    reason: str
    remedy: str
    modules: tuple[str, ...] = ()


class CheckReport(BaseModel):
    """All findings about an adapter, against what it was checked (`base` by name or id; None: on its own)."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...] = ()
    base: str | None = None

    @property
    def is_blocked(self) -> bool:
        return any(finding.severity == "blocks" for finding in self.findings)

    @property
    def blocking(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "blocks")

    def sentence(self) -> str:
        """The blocking findings as one text, for an error message."""
        return "; ".join(f"{finding.reason} [{finding.code}] → {finding.remedy}" for finding in self.blocking)
