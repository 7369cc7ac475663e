"""`adaptry serve`: a registry's folder as a server."""

from __future__ import annotations

import contextlib
import socket
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from adaptry.errors import Missing
from adaptry_cli.arguments import FOLDER
from adaptry_cli.connection import folder_of
from adaptry_cli.credentials import token_in
from adaptry_cli.durations import DURATION
from adaptry_cli.out import say, tell
from adaptry_cli.places import catalog_option
from adaptry_cli.work import beside

if TYPE_CHECKING:
    from adaptry_api.serve import Started

_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
_ONLY_HERE = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.option(
    "--data",
    metavar="DIR",
    type=FOLDER,
    help="The registry's folder; else that of ADAPTRY_URL, else the embedded registry's.",
)
@catalog_option
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8750, show_default=True, help="0 takes a free one."
)
@click.option("--anonymous-read", is_flag=True, help="Let callers without a token read what is public.")
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="Answer to this host name only; repeat."
)
@click.option(
    "--merged-cache",
    metavar="SIZE",
    help="Keep finished files of merged models on disk, up to as much as 50GB; else none.",
)
@click.option(
    "--upstream",
    envvar="ADAPTRY_HUB_UPSTREAM",
    metavar="URL",
    help="Read what is not here from another Hub, such as https://huggingface.co; also ADAPTRY_HUB_UPSTREAM, and its "
    "token in ADAPTRY_HUB_UPSTREAM_TOKEN.",
)
@click.option(
    "--upstream-cache",
    default="64GB",
    metavar="SIZE",
    show_default=True,
    help="Keep as much of its files on disk.",
)
@click.option(
    "--blobs",
    envvar="ADAPTRY_BLOBS",
    metavar="URL",
    help="Keep a new registry's files in a bucket, s3://bucket/prefix; also ADAPTRY_BLOBS.",
)
@click.option(
    "--blob-cache", default="10GB", metavar="SIZE", show_default=True, help="Keep as much of them here too."
)
@click.option("--presign-downloads", is_flag=True, help="Send readers of large files to the bucket itself.")
@click.option(
    "--notice",
    type=click.FloatRange(0, 600),
    default=0.0,
    show_default=True,
    metavar="SECONDS",
    help="Told to stop, go on for so long while /readyz says no, so that a balancer looks elsewhere.",
)
@click.option("--presign-uploads", is_flag=True, help="Have large files sent to the bucket itself.")
@click.option(
    "--mirror-of",
    envvar="ADAPTRY_MIRROR_OF",
    metavar="URL",
    help="Fetch what is asked for and not here from another registry, and keep it; also ADAPTRY_MIRROR_OF.",
)
@click.option(
    "--mirror-token-file",
    envvar="ADAPTRY_MIRROR_TOKEN_FILE",
    metavar="FILE",
    type=FOLDER,
    help="The token to ask it with; also ADAPTRY_MIRROR_TOKEN_FILE.",
)
@click.option(
    "--mirror-age",
    type=DURATION,
    default="60s",
    show_default=True,
    metavar="SPAN",
    help="Ask it again what a name means after so long.",
)
@click.option(
    "--admin-token-file",
    envvar="ADAPTRY_ADMIN_TOKEN_FILE",
    metavar="FILE",
    type=FOLDER,
    help="The administrator's token, else one that is made; the same for all servers of a registry.",
)
@click.option(
    "--signing-secret-file",
    envvar="ADAPTRY_SIGNING_SECRET_FILE",
    metavar="FILE",
    type=FOLDER,
    help="What uploads are signed with, else a secret that is made; the same for all servers of a registry.",
)
@click.option(
    "--spools",
    envvar="ADAPTRY_SPOOLS",
    metavar="DIR",
    type=FOLDER,
    help="Where pieces of Hub clients' uploads wait, else in the folder; the same for all servers of a registry.",
)
@click.option("--work", "is_working", is_flag=True, help="Also run jobs, in a process beside the server.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Server processes.")
def serve(
    data: Path | None,
    catalog: str | None,
    host: str,
    port: int,
    anonymous_read: bool,
    hosts: tuple[str, ...],
    merged_cache: str | None,
    upstream: str | None,
    upstream_cache: str,
    blobs: str | None,
    blob_cache: str,
    presign_downloads: bool,
    notice: float,
    presign_uploads: bool,
    mirror_of: str | None,
    mirror_token_file: Path | None,
    mirror_age: timedelta,
    admin_token_file: Path | None,
    signing_secret_file: Path | None,
    spools: Path | None,
    is_working: bool,
    workers: int,
) -> None:
    """Serve the registry over HTTP.

    Prints the address once it is reachable. Every caller needs a token; the first one, an administrator's, is
    written to a file in the registry's folder, and its path is told.
    """
    try:
        from adaptry_api import serve as server
    except ModuleNotFoundError as error:
        raise Missing(f"the server needs {error.name}: pip install 'adaptry[server]'") from error
    from adaptry.byte_sizes import parse_bytes
    from adaptry.settings import said

    folder = folder_of(data, "what is served is a folder")
    with beside(folder, catalog, blobs) if is_working else contextlib.nullcontext():
        server.serve(
            folder,
            host,
            port,
            catalog=catalog,
            anonymous_read=anonymous_read,
            hosts=hosts,
            merged_cache=parse_bytes(merged_cache) if merged_cache else 0,
            upstream=upstream,
            upstream_token=said("ADAPTRY_HUB_UPSTREAM_TOKEN"),
            upstream_cache=parse_bytes(upstream_cache),
            blobs=blobs,
            blob_cache=parse_bytes(blob_cache),
            presign_downloads=presign_downloads,
            notice=notice,
            presign_uploads=presign_uploads,
            mirror_of=mirror_of,
            mirror_token=token_in(mirror_token_file) if mirror_token_file else None,
            mirror_age=mirror_age.total_seconds(),
            admin_token=admin_token_file,
            signing_secret=signing_secret_file,
            spools=spools,
            workers=workers,
            announce=_announce,
        )


def _announce(started: Started) -> None:
    """The address as it can be used: one that stands for every interface is none to connect to."""
    port = urlsplit(started.url).port
    host = urlsplit(started.url).hostname or ""
    here, there = started.url, started.url
    if host in _EVERY_INTERFACE:
        here, there = f"http://{_EVERY_INTERFACE[host]}:{port}", f"http://{socket.gethostname()}:{port}"
    say(here)
    tell(f"the administrator's token is in {started.token_file}")
    tell(f"use it from elsewhere: adaptry login {there}, then ADAPTRY_URL={there}")
    if host not in _ONLY_HERE:
        tell(
            "warns: tokens and files go over the network unencrypted; beyond a network you trust, put a proxy with TLS in front"
        )
    tell("Ctrl-C stops the server")
