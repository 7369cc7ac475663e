"""Options that configure a server; each has the name of its field in `ServerSettings`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from adaptry.core.outgoing_requests.addresses import parse_network
from adaptry.core.settings import read_secret
from adaptry_api.origins import check_origin
from adaptry_api.request_log import LOG_FORMATS, LOG_LEVELS
from adaptry_cli.arguments import FOLDER
from adaptry_cli.durations import DURATION
from adaptry_cli.number_options import DecimalNumber
from adaptry_cli.renamed_option import RenamedOption
from adaptry_cli.sizes import SIZE


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all of these options. (`Any`: each command has its own arguments.)"""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _token(context: click.Context, option: click.Parameter, file: Path | None) -> str | None:
    return read_secret(file, option.opts[0]) if file else None


def _origins(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(check_origin, given))


def _networks(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(parse_network(text)) for text in given)


def _seconds(context: click.Context, option: click.Parameter, span: timedelta) -> float:
    return span.total_seconds()


_OPTIONS = (
    click.option(
        "--anonymous-read", is_flag=True, help="Let callers without a token read public adapters and bases."
    ),
    click.option(
        "--allow-host",
        "hosts",
        multiple=True,
        metavar="NAME",
        help="Answer requests for this host name only; may be repeated.",
    ),
    click.option(
        "--trust-proxy",
        "proxies",
        multiple=True,
        envvar="ADAPTRY_TRUST_PROXY",
        metavar="ADDRESS",
        help=(
            "Trust X-Forwarded-Host, -Proto and -For from this proxy (IP address or CIDR block); may be"
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
        "--allow-outgoing",
        multiple=True,
        envvar="ADAPTRY_ALLOW_OUTGOING",
        metavar="NETWORK",
        callback=_networks,
        help=(
            "Allow the server's own requests, such as for an issuer's keys, to this private network (CIDR"
            " block), even over plain http; may be repeated. Also ADAPTRY_ALLOW_OUTGOING, separated by"
            " spaces."
        ),
    ),
    click.option(
        "--sso-issuer",
        envvar="ADAPTRY_SSO_ISSUER",
        metavar="URL",
        help="The OpenID provider through which users sign in with a browser; also ADAPTRY_SSO_ISSUER.",
    ),
    click.option(
        "--sso-client-id",
        envvar="ADAPTRY_SSO_CLIENT_ID",
        metavar="ID",
        help=(
            "This server's client id at the provider; also ADAPTRY_SSO_CLIENT_ID, and its secret in"
            " ADAPTRY_SSO_CLIENT_SECRET or the file ADAPTRY_SSO_CLIENT_SECRET_FILE."
        ),
    ),
    click.option(
        "--sso-scopes",
        envvar="ADAPTRY_SSO_SCOPES",
        default="profile email",
        metavar="SCOPES",
        show_default=True,
        help=(
            "Scopes to request beside openid, separated by spaces, such as one for groups and"
            " offline_access; also ADAPTRY_SSO_SCOPES."
        ),
    ),
    click.option(
        "--sso-groups-claim",
        envvar="ADAPTRY_SSO_GROUPS_CLAIM",
        default="groups",
        metavar="CLAIM",
        show_default=True,
        help="The claim that lists a user's groups; also ADAPTRY_SSO_GROUPS_CLAIM.",
    ),
    click.option(
        "--merged-cache",
        type=SIZE,
        default=0,
        metavar="SIZE",
        help="Cache finished files of merged models on disk, up to this size, such as 50GB. Default: none.",
    ),
    click.option(
        "--upstream",
        envvar="ADAPTRY_HUB_UPSTREAM",
        metavar="URL",
        help=(
            "Another Hub, such as https://huggingface.co, for repositories that this server does not"
            " have; also"
            " ADAPTRY_HUB_UPSTREAM, and its token in ADAPTRY_HUB_UPSTREAM_TOKEN."
        ),
    ),
    click.option(
        "--upstream-cache",
        type=SIZE,
        default="64GB",
        metavar="SIZE",
        show_default=True,
        help="Maximum size of the cache of --upstream's files.",
    ),
    click.option(
        "--blob-cache",
        type=SIZE,
        default="10GB",
        metavar="SIZE",
        show_default=True,
        help="Maximum size of the local cache of a bucket's files.",
    ),
    click.option(
        "--presign-downloads", is_flag=True, help="Let readers download large files directly from the bucket."
    ),
    click.option(
        "--presign-uploads", is_flag=True, help="Let writers upload large files directly to the bucket."
    ),
    click.option(
        "--shutdown-delay",
        "notice",
        cls=RenamedOption,
        former="--notice",
        type=DecimalNumber(0, 600),
        default=0.0,
        show_default=True,
        metavar="SECONDS",
        help="When stopping, keep serving this long with /readyz failing, so that load balancers send"
        " requests elsewhere.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(LOG_FORMATS),
        default="text",
        envvar="ADAPTRY_LOG_FORMAT",
        show_default=True,
        help="Write the log, one line for each request, as text or JSON; also ADAPTRY_LOG_FORMAT.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(LOG_LEVELS),
        default="info",
        envvar="ADAPTRY_LOG_LEVEL",
        show_default=True,
        help="Write lines of this level and above; requests are info. Also ADAPTRY_LOG_LEVEL.",
    ),
    click.option(
        "--mirror-of",
        envvar="ADAPTRY_MIRROR_OF",
        metavar="URL",
        help=(
            "Another registry: versions that are missing here are fetched from it on request, and kept;"
            " also ADAPTRY_MIRROR_OF."
        ),
    ),
    click.option(
        "--mirror-token-file",
        "mirror_token",
        envvar="ADAPTRY_MIRROR_TOKEN_FILE",
        metavar="FILE",
        type=FOLDER,
        callback=_token,
        help="A file with the token for --mirror-of; also ADAPTRY_MIRROR_TOKEN_FILE.",
    ),
    click.option(
        "--mirror-ttl",
        cls=RenamedOption,
        former="--mirror-age",
        type=DURATION,
        default="60s",
        show_default=True,
        metavar="DURATION",
        callback=_seconds,
        help="How long to cache which version a ref selects, before --mirror-of is queried again.",
    ),
    click.option(
        "--admin-token-file",
        "admin_token",
        envvar="ADAPTRY_ADMIN_TOKEN_FILE",
        metavar="FILE",
        type=FOLDER,
        help=(
            "A file with the administrator's token, the same for all servers of a registry. Default: a"
            " new one."
        ),
    ),
    click.option(
        "--signing-secret-file",
        "signing_secret",
        envvar="ADAPTRY_SIGNING_SECRET_FILE",
        metavar="FILE",
        type=FOLDER,
        help=(
            "A file with the secret that signs uploads, the same for all servers of a registry. Default:"
            " a new"
            " one."
        ),
    ),
    click.option(
        "--upload-spool",
        cls=RenamedOption,
        former="--spools",
        envvar=["ADAPTRY_UPLOAD_SPOOL", "ADAPTRY_SPOOLS"],  # the second is the former name
        metavar="DIR",
        type=FOLDER,
        help=(
            "Folder for unfinished uploads of Hub clients, the same for all servers of a registry; also"
            " ADAPTRY_UPLOAD_SPOOL. Default: in the registry's folder."
        ),
    ),
)
