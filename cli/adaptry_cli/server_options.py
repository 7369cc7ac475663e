"""Options that configure a server: each is named for the field of `ServerSettings` that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from adaptry.core.settings import read_secret
from adaptry_api.origins import check_origin
from adaptry_cli.arguments import FOLDER
from adaptry_cli.durations import DURATION
from adaptry_cli.sizes import SIZE


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds them all. (`Any`: the arguments are each command's own.)"""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _token(context: click.Context, option: click.Parameter, file: Path | None) -> str | None:
    return read_secret(file, option.opts[0]) if file else None


def _origins(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(check_origin, given))


def _seconds(context: click.Context, option: click.Parameter, span: timedelta) -> float:
    return span.total_seconds()


_OPTIONS = (
    click.option("--anonymous-read", is_flag=True, help="Let callers without a token read what is public."),
    click.option(
        "--allow-host", "hosts", multiple=True, metavar="NAME", help="Answer to this host name only; repeat."
    ),
    click.option(
        "--trust-proxy",
        "proxies",
        multiple=True,
        envvar="ADAPTRY_TRUST_PROXY",
        metavar="ADDRESS",
        help=(
            "Trust X-Forwarded-Host and X-Forwarded-Proto from this proxy (IP address or CIDR block); may be"
            " repeated. Default: trust no one. Also ADAPTRY_TRUST_PROXY, separated by spaces."
        ),
    ),
    click.option(
        "--allow-origin",
        "origins",
        multiple=True,
        metavar="ORIGIN",
        callback=_origins,
        help=(
            "Let web pages of this origin call the server (CORS),"
            " such as https://app.example.com; may be repeated."
        ),
    ),
    click.option(
        "--merged-cache",
        type=SIZE,
        default=0,
        metavar="SIZE",
        help="Keep finished files of merged models on disk, up to as much as 50GB; else none.",
    ),
    click.option(
        "--upstream",
        envvar="ADAPTRY_HUB_UPSTREAM",
        metavar="URL",
        help=(
            "Read what is not here from another Hub, such as https://huggingface.co; also"
            " ADAPTRY_HUB_UPSTREAM, and its token in ADAPTRY_HUB_UPSTREAM_TOKEN."
        ),
    ),
    click.option(
        "--upstream-cache",
        type=SIZE,
        default="64GB",
        metavar="SIZE",
        show_default=True,
        help="Keep as much of its files on disk.",
    ),
    click.option(
        "--blob-cache",
        type=SIZE,
        default="10GB",
        metavar="SIZE",
        show_default=True,
        help="Keep as much of a bucket's files here too.",
    ),
    click.option(
        "--presign-downloads", is_flag=True, help="Send readers of large files to the bucket itself."
    ),
    click.option("--presign-uploads", is_flag=True, help="Have large files sent to the bucket itself."),
    click.option(
        "--notice",
        type=click.FloatRange(0, 600),
        default=0.0,
        show_default=True,
        metavar="SECONDS",
        help="Told to stop, go on for so long while /readyz says no, so that a balancer looks elsewhere.",
    ),
    click.option(
        "--mirror-of",
        envvar="ADAPTRY_MIRROR_OF",
        metavar="URL",
        help=(
            "Fetch what is asked for and not here from another registry, and keep it; also ADAPTRY_MIRROR_OF."
        ),
    ),
    click.option(
        "--mirror-token-file",
        "mirror_token",
        envvar="ADAPTRY_MIRROR_TOKEN_FILE",
        metavar="FILE",
        type=FOLDER,
        callback=_token,
        help="The token to ask it with; also ADAPTRY_MIRROR_TOKEN_FILE.",
    ),
    click.option(
        "--mirror-age",
        type=DURATION,
        default="60s",
        show_default=True,
        metavar="SPAN",
        callback=_seconds,
        help="Ask it again what a name means after so long.",
    ),
    click.option(
        "--admin-token-file",
        "admin_token",
        envvar="ADAPTRY_ADMIN_TOKEN_FILE",
        metavar="FILE",
        type=FOLDER,
        help="The administrator's token, else one that is made; the same for all servers of a registry.",
    ),
    click.option(
        "--signing-secret-file",
        "signing_secret",
        envvar="ADAPTRY_SIGNING_SECRET_FILE",
        metavar="FILE",
        type=FOLDER,
        help=(
            "What uploads are signed with, else a secret that is made;"
            " the same for all servers of a registry."
        ),
    ),
    click.option(
        "--spools",
        envvar="ADAPTRY_SPOOLS",
        metavar="DIR",
        type=FOLDER,
        help=(
            "Where pieces of Hub clients' uploads wait, else in the folder;"
            " the same for all servers of a registry."
        ),
    ),
)
