"""`adaptry cache ls`, `path`, `gc`, `forget`, `readmit`: adapters given to engines on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import NotFound
from adaptry.core.refs import ByDigest, Ref, parse_selector
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import FOLDER, REF
from adaptry_cli.connection import registry_option, settings_for
from adaptry_cli.exit_codes import NO
from adaptry_cli.out import (
    format_count,
    format_size,
    json_option,
    print_answer,
    print_err,
    print_json,
    print_out,
    progress,
)
from adaptry_cli.sizes import SIZE
from adaptry_cli.tables import print_table

if TYPE_CHECKING:
    from adaptry.core.digest import Digest
    from adaptry.integrations.serving import Cache
    from adaptry.integrations.serving.cache.layout import CacheEntry

_folder = click.option(
    "--cache", "folder", metavar="DIR", type=FOLDER, help="The cache; else ADAPTRY_CACHE, else one of yours."
)


@click.group()
def cache() -> None:
    """Manage the cache of adapters for engines on this machine.

    Each lies in a folder named by its digest, verified, for as long as a process uses it or there is room.
    """


@cache.command("ls")
@_folder
@json_option
def list_kept(folder: Path | None, as_json: bool) -> None:
    """List what is here, what goes first at the top."""
    opened = _opened(folder)
    entries = opened.entries()
    if as_json:
        print_json([_json_of(opened, entry) for entry in entries])
        return
    print_table(
        ("adapter", "digest", "size", "used", "state"),
        (
            (
                entry.version.label,
                entry.digest.brief,
                format_size(entry.size),
                f"{datetime.fromtimestamp(entry.used_at, UTC):%Y-%m-%d %H:%M}",
                _state(opened, entry),
            )
            for entry in entries
        ),
        right=("size",),
    )
    print_err(
        f"{format_count(len(entries), 'adapter')},"
        f" {format_size(sum(entry.size for entry in entries))} in {opened.root}"
    )


@cache.command()
@click.argument("ref", type=REF)
@_folder
@registry_option
@json_option
def path(registry: Registry, ref: Ref, folder: Path | None, as_json: bool) -> None:
    """Make sure that a version is here, and print its folder.

    The folder is verified, and is another one for every version. Nothing keeps it from being evicted once
    this command has ended, where room is needed: a process that stays uses `adaptry.worker.Cache`.
    """
    with progress() as bars:
        kept = _opened(folder).acquire(registry, ref, bars)
    print_err(f"{kept.version.label} {kept.digest}")
    found = {"folder": str(kept.path), "version": kept.version.model_dump(mode="json")}
    print_answer(found, str(kept.path), as_json)


@cache.command()
@click.option(
    "--size", "wanted", type=SIZE, metavar="SIZE", default=0, show_default=True, help="Leave so much."
)
@_folder
def gc(folder: Path | None, wanted: int) -> None:
    """Remove what nobody uses, what was not used for longest first; print the digests.

    What a process on this machine uses stays.
    """
    gone = _opened(folder).shrink(wanted)
    for entry in gone:
        print_out(str(entry.digest))
    print_err(
        f"{format_count(len(gone), 'adapter')}, {format_size(sum(entry.size for entry in gone))} removed"
    )


@cache.command()
@click.argument("digest", metavar="DIGEST")
@click.option("--reason", required=True, metavar="TEXT", help="Why; shown to whoever asks for it here.")
@_folder
def forget(digest: str, folder: Path | None, reason: str) -> None:
    """Remove a version from this machine, used or not, and refuse it until it is readmitted."""
    opened = _opened(folder)
    was_here = opened.recall(_digest(opened, digest), reason)
    print_err("removed" if was_here else "it was not here; it will not come either")


@cache.command()
@click.argument("digest", metavar="DIGEST")
@_folder
@click.pass_context
def readmit(ctx: click.Context, digest: str, folder: Path | None) -> None:
    """Let a version that was forgotten come again. The exit code is 1 where it was not."""
    opened = _opened(folder)
    found = _digest(opened, digest)
    why = opened.recall_reason(found)
    opened.readmit(found)
    print_err(f"it was refused: {why}" if why else "it was not refused")
    ctx.exit(0 if why else NO)


def _opened(folder: Path | None) -> Cache:
    from adaptry.integrations.serving.settings import open_worker_cache

    opened = open_worker_cache(settings_for(None), folder)
    click.get_current_context().call_on_close(opened.close)
    return opened


def _digest(opened: Cache, text: str) -> Digest:
    """A digest in full, or the beginning of one that is here. Raises `InvalidRef`, `NotFound`."""
    from adaptry.core.digest import Digest

    selector = parse_selector(text)
    prefix = selector.prefix if isinstance(selector, ByDigest) else ""
    if len(prefix) == 64:
        return Digest(prefix)
    found = [entry.digest for entry in opened.entries() if prefix and entry.digest.hex.startswith(prefix)]
    if len(found) != 1:
        raise NotFound(f"{text[:80]!r} begins no digest here, or more than one; give it in full (sha256:…)")
    return found[0]


def _state(opened: Cache, entry: CacheEntry) -> str:
    if entry.is_partial:
        return "arriving" if opened.is_leased(entry.digest) else "interrupted"
    return "in use" if opened.is_leased(entry.digest) else ""


def _json_of(opened: Cache, entry: CacheEntry) -> dict[str, object]:
    return {
        "digest": str(entry.digest),
        "version": entry.version.model_dump(mode="json"),
        "size": entry.size,
        "used_at": datetime.fromtimestamp(entry.used_at, UTC).isoformat(),
        "is_leased": opened.is_leased(entry.digest),
        "is_part": entry.is_partial,
    }
