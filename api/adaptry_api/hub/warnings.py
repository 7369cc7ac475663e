"""Warnings in the headers of a response: clients log the first one of each topic, even in error responses."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from starlette.responses import Response

from adaptry.registry.commit_info import CommitResult
from adaptry_api.header_text import header_text
from adaptry_api.hub.file_policy import shorten_names

WARNING_HEADER = "X-HF-Warning"
_MAX_LENGTH = 600
_MAX_WARNINGS = 5


def add_warnings(response: Response, topic: str, texts: Iterable[str]) -> None:
    """Adds a warning for each text."""
    for text in texts:
        response.headers.append(WARNING_HEADER, warning_line(topic, text))


def warning_line(topic: str, text: str) -> str:
    """The header's value. Each different text gets its own topic, so that none hides another."""
    line = header_text(text, _MAX_LENGTH)
    mark = hashlib.sha256(line.encode()).hexdigest()[:8]
    return f"{topic}-{mark}; {line}"


def left_out_warnings(left_out: Mapping[str, str | None]) -> list[str]:
    """One text for each reason."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in left_out.items():
        if reason is not None:
            by_reason.setdefault(reason, []).append(path)
    return [f"left out: {shorten_names(paths)} ({reason})" for reason, paths in by_reason.items()]


def finding_warnings(committed: CommitResult) -> list[str]:
    """The findings of the checks for an admitted version."""
    if committed.version is None or committed.report is None or not committed.is_new:
        return []
    version = f"{committed.version.name} version {committed.version.number}"
    found = [finding for finding in committed.report.findings if finding.severity == "warns"]
    ref = committed.version.label
    return [
        f"{version}: {finding.reason} [{finding.code}] → {finding.remedy_for(ref)}"
        for finding in found[:_MAX_WARNINGS]
    ]
