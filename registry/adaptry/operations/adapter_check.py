"""Whether an adapter can work: alone, against a base, and in engines.

The weights of a folder are read as well. For a version, only headers and configs are read: the registry
inspected its weights when it was pushed.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.content import FolderContent
from adaptry.core.display import format_count, html_table, short_repr, table_text
from adaptry.core.errors import Conflict, Invalid, NotFound
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.progress import Progress, no_progress
from adaptry.core.refs import Ref, folder_argument, is_folder_path, may_be_folder
from adaptry.core.report import CheckReport, Finding
from adaptry.operations.sources import (
    BaseToCheck,
    OpenedAdapter,
    ParentSource,
    RegistryOpener,
    Warn,
    configured_base,
    find_base,
    open_gguf,
    open_input,
    version_base,
)
from adaptry.operations.transfer import open_revision

if TYPE_CHECKING:
    from adaptry.adapters.base_record import BaseRecord
    from adaptry.checks.runtimes import Runtime, RuntimeVerdict


@dataclass(frozen=True, slots=True, repr=False)
class CheckResult:
    """The result of checking one adapter.

    `label` is the adapter's name in messages. `base` is the base that it was checked against; None if it was
    checked on its own. `is_configured_base`: the base is the one that its config names. `verdicts`: one for
    each engine.
    """

    label: str
    base: str | None
    is_configured_base: bool
    report: CheckReport
    verdicts: tuple[RuntimeVerdict, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings that do not depend on engines, most serious first."""
        return self.report.findings

    @property
    def is_blocked(self) -> bool:
        """Whether a finding blocks the adapter, so that it cannot work unchanged."""
        return self.report.is_blocked

    @property
    def is_served_as_trained(self) -> bool:
        """Whether every engine of the request serves the adapter as trained."""
        return all(one.outcome == "as_trained" for one in self.verdicts)

    def __repr__(self) -> str:
        head = short_repr(self, self._title())
        return f"{head}\n{table_text(self._rows())}" if self._rows() else head

    def _repr_html_(self) -> str:
        return html_table(self._title(), ("", "reason", "remedy"), self._rows())

    def _title(self) -> str:
        where = f"against {self.base}" if self.base else "on its own"
        verdict = "cannot work as it is" if self.is_blocked else "fine"
        counted = f", {format_count(len(self.findings), 'finding')}" if self.findings else ""
        return f"{self.label} {where}: {verdict}{counted}"

    def _rows(self) -> list[tuple[str, str, str]]:
        rows: list[tuple[str, str, str]] = [
            (found.severity, f"{found.reason} [{found.code}]", found.remedy_for(self.label))
            for found in self.findings
        ]
        for one in self.verdicts:
            rows.append((one.runtime, one.outcome.replace("_", " "), ""))
            rows += [
                ("", f"{found.reason} [{found.code}]", found.remedy_for(self.label)) for found in one.findings
            ]
        return rows


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Options of a check. `base`: a base other than its own; `other_base`: it may be a different model;
    `weights`: whether to read the weights, for NaN, infinite values and modules that change nothing. None:
    those of a folder are read; for a version, the findings of its push are used.
    """

    base: Path | str | None = None
    other_base: bool = False
    weights: bool | None = None
    runtimes: Sequence[Runtime] = ()


def check_adapter(
    connected: RegistryOpener,
    source: ParentSource,
    request: CheckRequest,
    *,
    warn: Warn,
    progress: Progress = no_progress,
) -> CheckResult:
    """Checks the adapter against its version's base, or the registered one that its config names, or
    `request.base`.

    Raises `NotFound`, `Invalid…`.
    """
    from adaptry.checks.runtimes import check_runtime

    given = None if request.base is None else find_base(connected, request.base)
    opened = _opened(connected, source, given, request.runtimes)
    own = _own_base(connected, opened, warn)
    against = given or own
    report = _report(connected, opened, against, own, request.other_base, warn)
    report = _with_example(report, opened, against, request.base)
    report = _with_push(report, opened)
    report = _with_weights(
        connected, source, opened, against.record, request.base, request.weights, report, progress
    )
    return CheckResult(
        opened.label,
        against.label if against.record else None,
        given is None and opened.version is None,
        report,
        tuple(check_runtime(opened.adapter, runtime, against.record) for runtime in request.runtimes),
    )


def _opened(
    connected: RegistryOpener, source: ParentSource, base: BaseToCheck | None, runtimes: Sequence[Runtime]
) -> OpenedAdapter:
    """The adapter; a GGUF file is opened in PEFT's layout, which requires the base."""
    if isinstance(source, Path):
        gguf = open_gguf(source, lambda: base.record if base else None)
        if gguf is not None:
            if runtimes:
                raise Invalid(
                    "an engine is checked with PEFT's files, and llama.cpp alone loads a .gguf: check it"
                    " without engines, or convert the file first (adaptry convert)"
                )
            return OpenedAdapter(gguf.adapter, gguf.label)
    return open_input(connected, source)


def _own_base(connected: RegistryOpener, opened: OpenedAdapter, warn: Warn) -> BaseToCheck:
    """The base that the adapter is for: its version's, else the registered one that its config names."""
    if opened.version:
        return version_base(connected, opened.version)
    return configured_base(connected, opened.adapter, warn) or BaseToCheck("no base", None)


def _report(
    connected: RegistryOpener,
    opened: OpenedAdapter,
    against: BaseToCheck,
    own: BaseToCheck,
    other_base: bool,
    warn: Warn,
) -> CheckReport:
    """The findings against a base; one more if it is a different model than the adapter's own base."""
    from adaptry.checks import check, sort_findings
    from adaptry.checks.base.identity import check_same_base

    names = _known_names(connected, opened, against, own, warn)
    report = check(opened.adapter, against.record, against.name, other_names=names)
    if own is against or own.record is None or against.record is None:
        return report
    more = list(check_same_base(own.record, against.record, own.label, against.label, is_allowed=other_base))
    kept = [one for one in report.findings if not (more and one.code == "base_name_differs")]
    return report.model_copy(update={"findings": sort_findings([*kept, *more])})


def _with_example(
    report: CheckReport, opened: OpenedAdapter, against: BaseToCheck, given: Path | str | None
) -> CheckReport:
    """The report, with an example text in a finding about the tokenizer, if the base is on this machine."""
    from adaptry.checks.base.tokenizer_example import with_example
    from adaptry.operations.base_registry import folders_of

    if against.record is None:
        return report
    is_folder = isinstance(given, Path) or (given is not None and is_folder_path(given, of_base=True))
    folders = [Path(given)] if given is not None and is_folder else []
    folders += folders_of(against.record.id)
    found = with_example(report.findings, opened.adapter, against.record, folders)
    return report.model_copy(update={"findings": found})


def _with_push(report: CheckReport, opened: OpenedAdapter) -> CheckReport:
    """The report of a folder. If the adapter's base is unknown, the remedy is a push that names the base."""
    from adaptry.checks import unknown_base

    content = opened.adapter.content
    if not isinstance(content, FolderContent):
        return report
    command = shlex.quote(folder_argument(content.folder))
    found = [
        unknown_base(opened.adapter.config.base_name, command) if one.code == "base_unknown" else one
        for one in report.findings
    ]
    return report.model_copy(update={"findings": tuple(found)})


def _known_names(
    connected: RegistryOpener, opened: OpenedAdapter, base: BaseToCheck, own: BaseToCheck, warn: Warn
) -> tuple[str, ...]:
    """The names of a base, and the one in the config if that is a base of the same weights. For a version's
    own base, also a name that may be a folder of the machine that it was trained on, or with which the
    version was bound to that base.
    """
    from adaptry.bases.fingerprinting.match import match_bases

    written = opened.adapter.config.base_name
    if base.record is None or written is None or written in base.names:
        return base.names
    is_own = opened.version is not None and own.record is not None and own.record.id == base.record.id
    if is_own and may_be_folder(written):
        named = _registered_base(connected, written)
        is_other = named is not None and not match_bases(named, base.record).is_same_model
        return base.names if is_other else (*base.names, written)
    if (
        is_own
        and opened.report
        and not any(one.code == "base_name_differs" for one in opened.report.findings)
    ):
        return (*base.names, written)
    configured = configured_base(connected, opened.adapter, warn)
    is_same = configured and configured.record and match_bases(configured.record, base.record).is_same_model
    return (*base.names, written) if is_same else base.names


def _registered_base(connected: RegistryOpener, name: str) -> BaseRecord | None:
    bases = connected().bases
    try:
        return bases.record(bases.get(name).id)
    except (NotFound, Invalid, Conflict):  # an unknown, invalid or ambiguous name
        return None


def _with_weights(
    connected: RegistryOpener,
    source: ParentSource,
    opened: OpenedAdapter,
    base: BaseRecord | None,
    folder: Path | str | None,
    is_read: bool | None,
    report: CheckReport,
    progress: Progress,
) -> CheckReport:
    """The report with the findings about weights: those stored with the version, or new ones. To read a
    version's weights, they are fetched into the cache once.
    """
    from adaptry.checks import sort_findings
    from adaptry.checks.weights import UNTRAINED, WEIGHTS_CODES, check_weights
    from adaptry.operations.lost_updates import find_lost_updates
    from adaptry.operations.unchanged_parts import find_unchanged

    if is_read is None and opened.report is not None:
        found = [one for one in opened.report.findings if one.code in WEIGHTS_CODES]
    elif is_read is not False:
        adapter = opened.adapter
        if isinstance(source, Ref):
            adapter = open_revision(connected(), source, progress=progress)
        found = check_weights(
            adapter, base=base, find_unchanged=partial(find_unchanged, adapter, base, folder)
        )
        is_untrained = any(one.code in UNTRAINED for one in found)
        if not is_untrained and not any(one.severity == "blocks" for one in (*report.findings, *found)):
            found += find_lost_updates(adapter, base, folder)
    else:
        return report
    return report.model_copy(update={"findings": sort_findings([*report.findings, *found])})
