"""`adaptry doctor`: whether this machine and the registry work. It leaves no changes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import click

from adaptry import __version__
from adaptry.core.errors import AdaptryError
from adaptry.core.files.durable import write_error
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.settings import AdaptrySettings, data_folder, is_server
from adaptry.storage.connect import (
    catalog_of,
    is_registry,
    missing_blob_capabilities,
    open_local,
    resolve_folder,
)
from adaptry.storage.local.forgotten_recalls import forgotten_recalls
from adaptry.storage.maintenance.case_conflicts import find_case_conflicts
from adaptry_cli.command import command
from adaptry_cli.connection import settings_for
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import format_count, format_size, json_option, print_json
from adaptry_cli.tables import print_facts

_MIN_FREE = 1 << 30  # bytes free under which a push of any size may fail
_SLOW_FLUSH_SECONDS = 0.25  # seconds for a flush to disk; a push needs a few


@dataclass(frozen=True, slots=True)
class DoctorResult:
    """The result of one check; `advice` is the remedy if it is not ok."""

    what: str
    verdict: Literal["ok", "warns", "fails"]
    found: str
    advice: str = ""


@command()
@click.option("--registry", "where", metavar="URL|DIR", help="The registry to check.")
@json_option
@click.pass_context
def doctor(ctx: click.Context, where: str | None, as_json: bool) -> None:
    """Check that this machine and the registry work.

    Checks Python, SQLite, the folder, free space and durability; for a server, whether it answers, and its
    versions. The exit code is 1 if something must be repaired.
    """
    found = [_python(), *_registry(settings_for(where))]
    if as_json:
        print_json(
            [
                {"what": one.what, "verdict": one.verdict, "found": one.found, "advice": one.advice}
                for one in found
            ]
        )
    else:
        print_facts(
            (one.what, f"{one.verdict}: {one.found}" + (f"\n→ {one.advice}" if one.advice else ""))
            for one in found
        )
    ctx.exit(NO if any(one.verdict == "fails" for one in found) else 0)


def _python() -> DoctorResult:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return DoctorResult("adaptry", "ok", f"{__version__}, Python {version} on {sys.platform}")


def _registry(settings: AdaptrySettings) -> Iterator[DoctorResult]:
    if settings.registry and is_server(settings.registry):
        yield _run_check("server", lambda: _server(settings))
        return
    folder = resolve_folder(settings.registry) if settings.registry else data_folder()
    if settings.catalog is None and catalog_of(folder) is None:
        yield _sqlite()
    yield _run_check("folder", lambda: _folder(folder))
    yield _disk_space(folder)
    yield from _bucket(folder, settings.blobs)
    yield _run_check("registry", lambda: _embedded(folder, settings.catalog))
    yield from _decisions(folder, settings.catalog)
    if is_registry(folder):
        yield _run_check("damage", lambda: _damage(folder, settings.catalog))


def _run_check(what: str, look: Callable[[], DoctorResult]) -> DoctorResult:
    try:
        return look()
    except AdaptryError as error:
        return DoctorResult(what, "fails", error.message)


def _server(settings: AdaptrySettings) -> DoctorResult:
    from adaptry.registry.http import HttpRegistry

    assert settings.registry is not None
    start = time.perf_counter()
    about = HttpRegistry(settings.registry, settings.token, settings.ca_bundle, settings.proxy).about()
    took = time.perf_counter() - start
    found = (
        f"{settings.registry} answers in {took * 1000:.0f} ms: adaptry {about.version}, API {about.api},"
        f" manifest schema {about.manifest_schema}; you are {about.identity} ({about.role})"
    )
    return DoctorResult("server", "ok", found)


def _sqlite() -> DoctorResult:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < (3, 37):
        return DoctorResult("SQLite", "fails", version, "3.37 or later is needed: use a newer Python build")
    return DoctorResult("SQLite", "ok", version)


def _folder(folder: Path) -> DoctorResult:
    """Writes and flushes a small file in the registry's folder. Raises `StorageFull`, `Unavailable`."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    if not place.is_dir():
        return DoctorResult("folder", "fails", f"{place} is a file", "choose a folder")
    start = time.perf_counter()
    try:
        with tempfile.NamedTemporaryFile(dir=place, prefix=".adaptry-doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, folder) from error
    took = time.perf_counter() - start
    found = f"{folder} is writable; a flush to disk takes {took * 1000:.1f} ms"
    if place != folder:
        found = f"{folder} does not exist yet and can be created; a flush to disk takes {took * 1000:.1f} ms"
    if took > _SLOW_FLUSH_SECONDS:
        return DoctorResult(
            "folder", "warns", found, "the disk is slow (a network disk?): use a local disk for SQLite"
        )
    return DoctorResult("folder", "ok", found)


def _disk_space(folder: Path) -> DoctorResult:
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    free = shutil.disk_usage(place).free
    if free < _MIN_FREE:
        return DoctorResult(
            "space",
            "warns",
            f"{format_size(free)} free",
            "free some, or move the registry (ADAPTRY_HOME)",
        )
    return DoctorResult("space", "ok", f"{format_size(free)} free")


def _bucket(folder: Path, url: str | None) -> Iterator[DoctorResult]:
    """Checks the bucket, if the registry's files are in one: whether it can be used, and which features its
    server lacks.
    """
    try:
        missing = missing_blob_capabilities(folder, url)
    except AdaptryError as error:
        yield DoctorResult("bucket", "fails", error.message)
        return
    if missing is not None:
        verdict: Literal["ok", "warns"] = "warns" if missing else "ok"
        yield DoctorResult(
            "bucket", verdict, "; ".join(missing) or "reads, writes and conditional writes work"
        )


def _decisions(folder: Path, catalog: str | None) -> Iterator[DoctorResult]:
    """Questions for an operator: names that differ only in case, recalls missing after a restore."""
    if not is_registry(folder):
        return
    try:
        with contextlib.closing(open_local(folder, catalog=catalog)) as registry:
            found = find_case_conflicts(registry.catalog)
            forgotten = forgotten_recalls(registry.catalog)
    except AdaptryError:  # reported by the check before
        return
    for recall in forgotten:
        yield DoctorResult(
            "recalls",
            "warns",
            f"{recall.name}@{recall.digest.brief} was {recall.state} before the registry was restored, as"
            f" {recall.source} shows",
            "this registry quarantines that version; revoke it again,"
            " or restore it if the recall was withdrawn",
        )
    for each in found:
        yield DoctorResult(
            "names",
            "warns",
            f"{each.kind} that differ only in case: {', '.join(each.names)}",
            "exact spelling still finds each, but clients of the Hub may confuse them:"
            " rename or remove all but one",
        )


def _damage(folder: Path, catalog: str | None) -> DoctorResult:
    """Reports the damage that `adaptry verify` found earlier; nothing is read again."""
    with contextlib.closing(open_local(folder, catalog=catalog)) as registry:
        known = registry.known_damage()
    if not known.files:
        return DoctorResult("damage", "ok", "no known damage; `adaptry verify --read-data` reads every file")
    found = (
        f"{format_count(known.files, 'stored file')} damaged or lost, needed by"
        f" {format_count(known.versions, 'version')}"
    )
    return DoctorResult("damage", "fails", found, "`adaptry repair --dry-run` shows how to repair it")


def _embedded(folder: Path, catalog: str | None) -> DoctorResult:
    """Opens the embedded registry, which checks the settings of its database (synchronous commits, …) and
    updates its schema.
    """
    if not is_registry(folder):
        return DoctorResult("registry", "ok", f"none in {folder} yet; the first push creates it")
    with contextlib.closing(open_local(folder, catalog=catalog)) as registry:
        page = registry.adapters.list(None, None, 1)
        address = catalog_of(folder)
    where = f"{folder} (catalog in {address})" if address else folder
    return DoctorResult("registry", "ok", f"{where} opens and has {'' if page.items else 'no '}adapters")
