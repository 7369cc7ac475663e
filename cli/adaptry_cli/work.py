"""`adaptry work`: run a registry's jobs on this machine until it is stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click

from adaptry.core.errors import Invalid, MissingDependency, ProtocolMismatch
from adaptry.registry.job_types.records import DEVICES, RunnerInfo
from adaptry_cli.arguments import require_usage
from adaptry_cli.command import command
from adaptry_cli.connection import folder_of
from adaptry_cli.durations import DURATION
from adaptry_cli.exit_codes import exit_code
from adaptry_cli.number_options import DecimalNumber, WholeNumber
from adaptry_cli.output import format_count, format_size, json_option, print_err, print_json_line, print_out
from adaptry_cli.sizes import SIZE
from adaptry_cli.storage_options import storage_options


@command()
@storage_options
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Choice(DEVICES),
    help="A device that jobs may use besides the CPU; may be repeated.",
)
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Also run jobs that require this tag; may be repeated.",
)
@click.option(
    "--concurrency",
    type=WholeNumber(1, 64),
    default=1,
    show_default=True,
    help="Number of job steps at once.",
)
@click.option(
    "--memory",
    type=SIZE,
    default=0,
    metavar="SIZE",
    help="Memory for all steps together, such as 8GB. Default: all of the machine's memory.",
)
@click.option(
    "--lease",
    type=DecimalNumber(0.5, 3600),
    metavar="SECONDS",
    default=30.0,
    show_default=True,
    help="Seconds without a heartbeat after which other runners take over this runner's jobs.",
)
@click.option(
    "--poll",
    type=DecimalNumber(0.05, 60),
    metavar="SECONDS",
    help="How long to wait between two checks for new jobs and steps. Default: 0.2, or 1 if the catalog is"
    " in PostgreSQL.",
)
@click.option(
    "--remote",
    "remotes",
    multiple=True,
    metavar="NAME=URL",
    help="A registry that `replicate` jobs may copy to; may be repeated.",
)
@click.option(
    "--keep",
    type=DURATION,
    default="30d",
    show_default=True,
    metavar="DURATION",
    help="Delete the records and logs of jobs that ended longer ago than this; at least 2d.",
)
@click.option(
    "--allow-outgoing",
    "allowed",
    multiple=True,
    envvar="ADAPTRY_ALLOW_OUTGOING",
    metavar="NETWORK",
    help=(
        "Allow webhooks to this private network (CIDR block), even over plain http; may be"
        " repeated. Also ADAPTRY_ALLOW_OUTGOING, separated by spaces."
    ),
)
@click.option("--once", is_flag=True, help="Stop when no job is queued or running.")
@json_option
@click.option("--until-eof", is_flag=True, help="Stop when standard input ends; for a parent process.")
def work(
    data: Path | None,
    catalog: str | None,
    blobs: str | None,
    devices: tuple[str, ...],
    tags: tuple[str, ...],
    concurrency: int,
    memory: int,
    lease: float,
    poll: float | None,
    remotes: tuple[str, ...],
    keep: timedelta,
    allowed: tuple[str, ...],
    once: bool,
    until_eof: bool,
    as_json: bool,
) -> None:
    """Run the registry's jobs on this machine, and send its webhooks.

    A runner accesses the registry's database and files directly, so it is trusted; each job has the rights of
    the person who submitted it. Start one on each machine. Every step of a job runs in its own process.
    """
    from adaptry.core.outgoing_requests.addresses import parse_network
    from adaptry.core.settings import AdaptrySettings
    from adaptry.core.telemetry import exporting_telemetry
    from adaptry.jobs.ipc import RegistryLocation
    from adaptry.jobs.runner import RunnerSettings, run_jobs
    from adaptry.storage.webhooks.delivery import webhook_connector

    require_usage(keep >= timedelta(days=2), "--keep is at least 2d, because schedules look one day back")
    folder = folder_of(data, "a runner needs the registry's own folder")
    networks = tuple(map(parse_network, allowed))
    settings = RunnerSettings(
        location=RegistryLocation(folder=str(folder.absolute()), catalog=catalog, blobs=blobs),
        devices=devices,
        tags=tags,
        concurrency=concurrency,
        memory=memory,
        lease=lease,
        poll=poll,
        once=once,
        keep=keep,
        remotes=dict(_remote(text) for text in remotes),
        connector=None if once else webhook_connector(networks, AdaptrySettings.from_env().ca_bundle),
    )
    stop = threading.Event()

    def request_stop(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    if until_eof:
        threading.Thread(target=_end_at_eof, args=(stop,), daemon=True).start()
    code = 0
    try:
        with exporting_telemetry("adaptry-runner"):
            run_jobs(settings, stop, lambda runner: _announce(runner, as_json))
    except ProtocolMismatch as error:
        print_err(f"error: {error.message}")
        code = exit_code(error)
    # Threads of the engine still wait for steps that were given up: they have nothing to save.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def runner_process(
    data: Path, catalog: str | None, blobs: str | None, allow_outgoing: Sequence[str] = ()
) -> Iterator[None]:
    """Runs a runner in a separate process during the block; it also ends if this process crashes.

    Raises `MissingDependency`.
    """
    if importlib.util.find_spec("dbos") is None:
        raise MissingDependency("running jobs needs dbos: pip install 'adaptry[jobs]'")
    words = [sys.executable, "-m", "adaptry_cli", "work", "--data", str(data), "--until-eof"]
    words += [f"--allow-outgoing={network}" for network in allow_outgoing]
    environ = {name: value for name, value in os.environ.items() if name != "ADAPTRY_CATALOG_FILE"}
    # Not on the command line, which every user of the machine can read.
    environ |= {"ADAPTRY_CATALOG": catalog} if catalog else {}
    environ |= {"ADAPTRY_BLOBS": blobs} if blobs else {}
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ)
    try:
        yield
    finally:
        process.communicate()  # closing its input ends it


def _end_at_eof(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(1 << 16):
        continue
    stop.set()


def _announce(runner: RunnerInfo, as_json: bool) -> None:
    if as_json:
        print_json_line(runner)
        return
    print_out(runner.id)
    print_err(
        f"runs up to {format_count(runner.concurrency, 'step')} at a time in {format_size(runner.memory)}, on"
        f" {', '.join(('the CPU', *runner.devices))}"
    )
    print_err("Ctrl-C stops this runner; other runners continue its jobs")


def _remote(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url:
        raise Invalid(f"not a registry to copy to: {text[:200]!r} (write NAME=URL)")
    return name, url
