"""`adaptry lock`: pin refs to digests in a file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from adaptry.core.errors import Invalid, NotFound
from adaptry.core.files.durable import write_error
from adaptry.core.refs import Ref
from adaptry.operations.lockfile import LockFile, find_stale_pins, pin_refs
from adaptry.registry.interface import Registry
from adaptry_cli.arguments import FOLDER, REF, require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.exit_codes import NO
from adaptry_cli.output import json_option, print_err, print_json, print_lines, print_out

DEFAULT = Path("adaptry.lock")


@command()
@click.argument("refs", type=REF, nargs=-1)
@click.option(
    "-o",
    "--output",
    "file",
    type=FOLDER,
    default=DEFAULT,
    show_default=True,
    metavar="FILE",
    help="The lock file.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Write nothing; the exit code is 1 if a ref in the file now selects another version.",
)
@registry_option
@json_option
@click.pass_context
def lock(
    ctx: click.Context, registry: Registry, refs: tuple[Ref, ...], file: Path, check: bool, as_json: bool
) -> None:
    """Pin refs to digests in a file.

    `adaptry pull --locked FILE --to DIR` then pulls exactly those versions, even after aliases have moved.
    """
    require_usage(check != bool(refs), "pass the REFs to pin, or --check alone")
    if check:
        found = find_stale_pins(registry.versions, read_lock(file))
        if as_json:
            print_json(found)
        else:
            print_lines(change.sentence() for change in found)
        if not found:
            print_err(f"every ref in {file} still selects the same version")
        ctx.exit(NO if found else 0)
    pinned = pin_refs(registry.versions, refs)
    _write(file, pinned.to_text())
    if as_json:
        print_json(pinned)
        return
    for entry in pinned.pins:
        print_out(f"{entry.ref} {entry.digest}")
    print_err(f"wrote {file}")


def read_lock(file: Path) -> LockFile:
    """Reads a lock file. Raises `NotFound`, `Invalid`, `ProtocolMismatch`."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"no lock file at {file}; `adaptry lock REF… -o {file}` writes one") from None
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror}") from error
    return LockFile.parse(data, str(file))


def _write(file: Path, text: str) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(file)
    except OSError as error:
        raise write_error(error, file) from error
