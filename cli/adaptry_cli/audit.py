"""`adaptry audit`: show, export and verify the audit log."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from adaptry.core.transparency.checkpoint import VerifierKey
from adaptry.operations.audit_verification import AuditReport, verify_export, verify_log, write_export
from adaptry.registry.audit_log import AuditEntry, AuditFilter
from adaptry.registry.interface import Registry
from adaptry_cli.administration import administered_registry, open_administered
from adaptry_cli.arguments import require_usage, validate_options
from adaptry_cli.command import group
from adaptry_cli.exit_codes import NO
from adaptry_cli.number_options import limit_option
from adaptry_cli.output import collect_pages, format_count, json_option, print_err, print_json, print_out
from adaptry_cli.points_in_time import POINT_IN_TIME
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when


@group()
def audit() -> None:
    """Show, export and verify the audit log.

    It records every change, and every denied request. Administrators see all entries, owners those about
    their namespaces. docs/audit.md lists the actions.
    """


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that select entries, and passes their values as `wanted`. (`Any`: each command has its
    own arguments.)
    """

    @click.option("--actor", metavar="NAME", help="Only entries with this actor.")
    @click.option(
        "--action", metavar="ACTION", help="Only this action, or all of a scope: alias.move, 'token.*'."
    )
    @click.option(
        "--resource",
        metavar="REF",
        help="Only entries about this namespace, adapter, alias (acme/tone@prod) or principal.",
    )
    @click.option(
        "--since",
        type=POINT_IN_TIME,
        help="Only entries since this time: a date, or how long ago, such as 24h or 7d.",
    )
    @click.option(
        "--until",
        type=POINT_IN_TIME,
        help="Only entries before this time: a date, or how long ago, such as 24h or 7d.",
    )
    @click.option("--denied/--allowed", default=None, help="Only denied actions, or only allowed ones.")
    @functools.wraps(command)
    def chosen(
        *args: Any,
        actor: str | None,
        action: str | None,
        resource: str | None,
        since: datetime | None,
        until: datetime | None,
        denied: bool | None,
        **options: Any,
    ) -> Any:
        wanted = validate_options(
            AuditFilter,
            actor=actor,
            action=action,
            resource=resource,
            since=since,
            until=until,
            denied=denied,
        )
        return command(*args, wanted=wanted, **options)

    return chosen


@audit.command()
@filter_options
@limit_option
@administered_registry
@exact_times_option
@json_option
def ls(registry: Registry, wanted: AuditFilter, limit: int, as_json: bool) -> None:
    """List entries of the audit log, newest first.

    An entry without a number is not sealed yet; a server seals entries within five seconds.
    """
    found = collect_pages(lambda cursor, many: registry.audit.list(wanted, cursor, many), limit)
    if as_json:
        print_json(found)
        return
    print_table(
        ("seq", "when", "who", "action", "what", "outcome", "detail"),
        (
            (
                "" if entry.seq is None else str(entry.seq),
                format_when(entry.at),
                entry.actor,
                entry.action,
                entry.what,
                entry.outcome,
                _detail(entry),
            )
            for entry in found
        ),
        right=("seq",),
        cut=("detail",),
        drop=("outcome",),
        empty="no entries match",
    )


@audit.command()
@filter_options
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; it must not exist yet. Default: standard output.",
)
@administered_registry
def export(registry: Registry, wanted: AuditFilter, to: Path | None) -> None:
    """Export entries of the audit log as JSON, one per line.

    Without filters, exports the whole log, whose last lines are its signed checkpoints: `adaptry audit verify
    --file FILE` verifies it anywhere. With filters, exports only the matching entries, oldest first. The log
    records the export.
    """
    require_usage(to is None or not to.exists(), f"{to} exists already; name another file")
    target = sys.stdout.buffer if to is None else to.open("xb")  # UTF-8 everywhere
    try:
        count = write_export(registry.audit, wanted, lambda line: target.write(f"{line}\n".encode()))
        target.flush()
    except BaseException:
        if to is not None:
            target.close()
            to.unlink()
        raise
    if to is not None:
        target.close()
    print_err(f"exported {_entries(count)}")


@audit.command()
@click.option(
    "--to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The file to write; it must not exist yet. Default: standard output.",
)
@administered_registry
@json_option
def checkpoint(registry: Registry, to: Path | None, as_json: bool) -> None:
    """Print the newest signed checkpoint of the audit log.

    Keep it where the registry's administrators cannot change it: `adaptry audit verify --checkpoint FILE`
    then proves that nothing before it was rewritten. It is a signed note, as C2SP's tlog-checkpoint defines
    it; --json also shows the key that verifies it.
    """
    found = registry.audit.checkpoint()
    require_usage(found.note is not None, "the audit log has no checkpoint yet")
    assert found.note is not None
    require_usage(to is None or not to.exists(), f"{to} exists already; name another file")
    note = found.note.encode()  # the signed bytes, independent of the terminal's encoding
    if to is not None:
        to.write_bytes(note)
    if as_json:
        print_json(found)
    elif to is None:
        click.echo(note, nl=False)


@audit.command()
@click.option(
    "--file",
    "exported",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Verify an exported log instead of a registry's.",
)
@click.option(
    "--checkpoint",
    "older",
    cls=RenamedOption,
    former="--older",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A checkpoint saved earlier; the log must begin with the entries that it covers.",
)
@click.option("--key", metavar="KEY", help="The log's public key. Default: the registry's.")
@click.option(
    "--checkpoint-key",
    "older_key",
    metavar="KEY",
    help="The key of the saved checkpoint, if the log's key has been replaced since. Default: the log's.",
)
@click.option("--registry", "where", metavar="URL|DIR", help="The registry whose log is verified.")
@click.pass_context
@json_option
def verify(
    context: click.Context,
    exported: Path | None,
    older: Path | None,
    key: str | None,
    older_key: str | None,
    where: str | None,
    as_json: bool,
) -> None:
    """Verify that the audit log was not altered.

    The hash of every entry is computed again, and the roots of the Merkle tree are compared with the signed
    checkpoints. Entries that were changed, removed or inserted are listed; the exit code is then 1.
    """
    require_usage(older_key is None or older is not None, "--checkpoint-key needs --checkpoint FILE")
    known = VerifierKey.parse(key) if key is not None else None
    known_then = VerifierKey.parse(older_key) if older_key is not None else None
    saved = older.read_text(encoding="utf-8") if older is not None else None
    if exported is not None:
        report = verify_export(exported, known, saved, known_then)
    else:
        report = verify_log(open_administered(where).audit, known, saved, known_then)
    if as_json:
        print_json(report)
    else:
        for problem in report.problems:
            print_out(problem)
        print_err(_summary(report))
    context.exit(NO if report.problems else 0)


def _detail(entry: AuditEntry) -> str:
    """The change, or the reason for a denial, on one line."""
    if entry.reason is not None:
        return entry.reason
    was = ", ".join(f"{name} {value}" for name, value in (entry.before or {}).items())
    now = ", ".join(f"{name} {value}" for name, value in (entry.after or {}).items())
    return f"{was} → {now}" if was and now else was or now


def _summary(report: AuditReport) -> str:
    problems = len(report.problems)
    verdict = "nothing was altered" if not problems else format_count(problems, "problem")
    parts = [f"{verdict}: {_entries(report.entries)} sealed"]
    if report.checkpoint is not None:
        parts.append(f"newest checkpoint {report.checkpoint}")
    if report.older is not None:
        parts.append(f"older checkpoint {report.older}")
    if report.unsealed:
        parts.append(f"{_entries(report.unsealed)} not sealed yet, and therefore not protected")
    if report.key is None and report.checkpoint is not None:
        parts.append("signatures not verified: pass --key")
    return "; ".join(parts)


def _entries(count: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}"
