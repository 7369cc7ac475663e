"""`adaptry cache ls`, `path`, `gc`, `block`, `unblock`: the engines' cache on this machine."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adaptry.core.errors import Conflict, NotFound, Unavailable
from adaptry.core.refs import ByDigest, Ref, parse_selector
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import FOLDER, REF
from adaptry_cli.command import group
from adaptry_cli.connection import registry_option, settings_for
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import (
    format_count,
    format_size,
    json_option,
    print_answer,
    print_done,
    print_err,
    print_json,
    print_lines,
    progress,
)
from adaptry_cli.sizes import SIZE
from adaptry_cli.tables import print_table
from adaptry_cli.times import exact_times_option, format_when

if TYPE_CHECKING:
    from adaptry.core.digest import Digest
    from adaptry.integrations.serving import Cache
    from adaptry.integrations.serving.cache.layout import CacheEntry

_folder = click.option(
    "--cache",
    "folder",
    metavar="DIR",
    type=FOLDER,
    help="The cache folder. Default: ADAPTRY_CACHE, then one in the user's data folder.",
)


@group(former={"forget": "block", "readmit": "unblock"})
def cache() -> None:
    """Manage the cache of adapters for engines on this machine.

    Each version is verified and has a folder named by its digest. It stays while a process uses it, and
    afterwards as long as there is room.
    """


@cache.command("ls")
@_folder
@exact_times_option
@json_option
def list_kept(folder: Path | None, as_json: bool) -> None:
    """List the cached versions, in the order in which they would be removed."""
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
                format_when(datetime.fromtimestamp(entry.used_at, UTC)),
                _state(opened, entry),
            )
            for entry in entries
        ),
        right=("size",),
        cut=("state",),
        drop=("digest", "used"),
    )
    print_err(
        f"{format_count(len(entries), 'adapter')},"
        f" {format_size(sum(entry.size for entry in entries))} in {opened.root}"
    )
    if stacks := opened.stacks.sizes():
        print_err(f"{format_count(len(stacks), 'stack')} of several adapters, {format_size(sum(stacks))}")


@cache.command()
@click.argument("ref", type=REF)
@_folder
@registry_option
@json_option
def path(registry: Registry, ref: Ref, folder: Path | None, as_json: bool) -> None:
    """Fetch a version into the cache if needed, and print its folder.

    The files are verified; every version has its own folder. After this command has ended, the folder may be
    removed when room is needed. A process that keeps using it should use `adaptry.worker.Cache`.
    """
    with progress() as bars:
        kept = _opened(folder).acquire(registry, ref, bars)
    print_err(f"{kept.version.label} {kept.digest}")
    found = {"folder": str(kept.path), "version": kept.version.model_dump(mode="json")}
    print_answer(found, str(kept.path), as_json)


@cache.command()
@click.option(
    "--size",
    "wanted",
    type=SIZE,
    metavar="SIZE",
    default=0,
    show_default=True,
    help="Shrink the cache to this size.",
)
@click.option(
    "--engine-gone",
    "urls",
    multiple=True,
    metavar="URL",
    help=(
        "An engine that is permanently gone: adapters kept for it may be removed. 'URL on HOST' means an "
        "engine on another host that shares the cache. May be repeated."
    ),
)
@_folder
@json_option
def gc(folder: Path | None, wanted: int, urls: tuple[str, ...], as_json: bool) -> None:
    """Remove unused versions, the least recently used first; print their digests.

    Versions that a process on this machine uses are kept. So are those that an engine may read again (vLLM
    stops if a folder is missing), until `adaptry follow` beside the engine sees that they are unloaded, or
    you declare the engine gone with --engine-gone.
    """
    opened = _opened(folder)
    for url in urls:
        _forget_engine(opened, url)
    gone = opened.shrink(wanted)
    if as_json:
        print_json([_json_of(opened, entry) for entry in gone])
    else:
        print_lines(str(entry.digest) for entry in gone)
    print_err(
        f"{format_count(len(gone), 'adapter')}, {format_size(sum(entry.size for entry in gone))} removed"
    )
    for user in opened.users():
        print_err(f"kept: {user.sentence()}")


def _forget_engine(opened: Cache, address: str) -> None:
    """Ends the holds of an engine. Raises `Conflict` if a server answers at its address here."""
    url, _, host = address.partition(" on ")
    if "://" in url and host in ("", socket.gethostname()) and _is_answering(url):
        raise Conflict(
            f"an engine answers at {url}, so it is not gone: stop it first, or let `adaptry follow` unload"
            " its adapters"
        )
    ended = opened.forget_engine(address.rstrip("/"))
    print_err(f"{address}: {format_count(len(ended), 'adapter')} no longer kept for it")


def _is_answering(url: str) -> bool:
    from adaptry.integrations.serving.engines import EngineClient

    try:
        EngineClient(url).get("/health")
    except Unavailable:
        return False
    return True


@cache.command()
@click.argument("digest", metavar="DIGEST")
@click.option(
    "--reason", required=True, metavar="TEXT", help="Why; shown to processes that request the version here."
)
@_folder
@json_option
def block(digest: str, folder: Path | None, reason: str, as_json: bool) -> None:
    """Remove a version from this machine, and refuse it until it is unblocked.

    Files that a process or an engine still uses are removed once it no longer does.
    """
    opened = _opened(folder)
    found = _digest(opened, digest)
    was_here = opened.recall(found, reason)
    users = [user for user in opened.users() if any(entry.digest == found for entry in user.entries)]
    if opened.has_files(found):
        text = (
            "refused from now on; its files are still in use, and will be removed when they are no longer"
            " used by:"
        )
        text = "\n".join([text, *(user.sentence() for user in users)])
    else:
        text = "removed" if was_here else "it was not in the cache, and is refused from now on"
    print_done({"digest": str(found), "was_here": was_here, "in_use": opened.has_files(found)}, text, as_json)


@cache.command()
@click.argument("digest", metavar="DIGEST")
@_folder
@json_option
@click.pass_context
def unblock(ctx: click.Context, digest: str, folder: Path | None, as_json: bool) -> None:
    """Allow a blocked version again. The exit code is 1 if it was not blocked."""
    opened = _opened(folder)
    found = _digest(opened, digest)
    why = opened.recall_reason(found)
    opened.unblock(found)
    text = f"allowed again; it was refused because: {why}" if why else "it was not refused"
    print_done({"digest": str(found), "was_refused": bool(why), "reason": why}, text, as_json)
    ctx.exit(0 if why else NO)


def _opened(folder: Path | None) -> Cache:
    from adaptry.integrations.serving.settings import open_worker_cache

    opened = open_worker_cache(settings_for(None), folder)
    click.get_current_context().call_on_close(opened.close)
    return opened


def _digest(opened: Cache, text: str) -> Digest:
    """A complete digest, or the beginning of one in this cache. Raises `InvalidRef`, `NotFound`."""
    from adaptry.core.digest import Digest

    selector = parse_selector(text)
    prefix = selector.prefix if isinstance(selector, ByDigest) else ""
    if len(prefix) == 64:
        return Digest(prefix)
    found = [entry.digest for entry in opened.entries() if prefix and entry.digest.hex.startswith(prefix)]
    if len(found) != 1:
        raise NotFound(
            f"no digest in the cache, or more than one, begins with {text[:80]!r}; `adaptry cache ls` lists"
            " them, or pass all 64 digits (sha256:…)"
        )
    return found[0]


def _state(opened: Cache, entry: CacheEntry) -> str:
    if entry.is_partial:
        return "arriving" if opened.is_leased(entry.digest) else "interrupted"
    engines = [f"kept for {hold.engine_label}" for hold in opened.holds(entry.digest)]
    return ", ".join((*(["in use"] if opened.is_leased(entry.digest) else []), *engines))


def _json_of(opened: Cache, entry: CacheEntry) -> dict[str, object]:
    return {
        "digest": str(entry.digest),
        "version": entry.version.model_dump(mode="json"),
        "size": entry.size,
        "used_at": datetime.fromtimestamp(entry.used_at, UTC).isoformat(),
        "is_leased": opened.is_leased(entry.digest),
        "is_part": entry.is_partial,
        "kept_for": [hold.model_dump(mode="json") for hold in opened.holds(entry.digest)],
    }
