"""An example for a finding about a tokenizer, if the base's folder is on this machine: a text and its
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from adaptry.adapters.adapter import Adapter
from adaptry.adapters.base_record import BaseRecord
from adaptry.bases.fingerprinting.tokenizer import tokenization_of
from adaptry.bases.fingerprinting.vocabulary import TOKENIZER
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import run_in_worker
from adaptry.core.report import Finding

_MIB = 1 << 20
_MAX_BYTES = 64 * _MIB
_CODES = frozenset(["tokenization_differs", "tokenizer_differs"])


def with_example(
    findings: Iterable[Finding], adapter: Adapter, base: BaseRecord, folders: Iterable[Path]
) -> tuple[Finding, ...]:
    """The findings; one about a tokenizer gets a text that becomes different tokens, if such a text is found.
    `folders` may contain the base; a folder is used only if its tokenizer matches the record.
    """
    findings = tuple(findings)
    if not any(found.code in _CODES for found in findings):
        return findings
    example = _example(adapter, base, folders)
    if example is None:
        return findings
    return tuple(
        found.model_copy(update={"reason": f"{found.reason}; {example}"}) if found.code in _CODES else found
        for found in findings
    )


def _example(adapter: Adapter, base: BaseRecord, folders: Iterable[Path]) -> str | None:
    size = adapter.content.sizes.get(TOKENIZER)
    folder = next((each for each in folders if tokenization_of(each) == base.tokenization), None)
    if folder is None or base.tokenization is None or size is None or size > _MAX_BYTES:
        return None
    ours, theirs = adapter.content.read_all(TOKENIZER, _MAX_BYTES), (folder / TOKENIZER).read_bytes()
    mib = (len(ours) + len(theirs)) // _MIB + 1
    limits = ProcessLimits(10.0 + 2.0 * mib, (1024 + 64 * mib) * _MIB)
    try:
        answer = run_in_worker(
            "adaptry.bases.fingerprinting.tokenizer_example", ours + theirs, limits, [str(len(ours))]
        )
    except (ProcessTimeout, ProcessFailed):
        return None
    found = json.loads(answer)
    if found is None:
        return None
    mine, its = (" ".join(f"{token[:40]!a}" for token in found[key]) for key in ("ours", "bases"))
    return f"for example {found['text'][:80]!a} becomes {mine}, but with the base's {its}"
