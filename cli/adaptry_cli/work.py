"""`adaptry work`: this machine runs jobs of a registry until it is told to stop."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType

import click

from adaptry.core.errors import Invalid, MissingDependency
from adaptry.registry.job_types.records import DEVICES, RunnerInfo
from adaptry_cli.arguments import require_usage
from adaptry_cli.connection import folder_of
from adaptry_cli.durations import DURATION
from adaptry_cli.out import format_size, print_err, print_out
from adaptry_cli.sizes import SIZE
from adaptry_cli.storage_options import storage_options


@click.command()
@storage_options
@click.option(
    "--device",
    "devices",
    multiple=True,
    type=click.Choice(DEVICES),
    help="What it can compute on beside the processor; repeat.",
)
@click.option(
    "--tag", "tags", multiple=True, metavar="TAG", help="Also take jobs that ask for this tag; repeat."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 64), default=1, show_default=True, help="Steps of jobs at once."
)
@click.option(
    "--memory",
    type=SIZE,
    default=0,
    metavar="SIZE",
    help="What they may take together, as in 8GB; else all there is.",
)
@click.option(
    "--lease",
    type=click.FloatRange(0.5, 3600),
    default=30.0,
    show_default=True,
    help="Seconds without a heartbeat after which other runners take a runner's work.",
)
@click.option(
    "--poll",
    type=click.FloatRange(0.05, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks for work.",
)
@click.option(
    "--remote",
    "remotes",
    multiple=True,
    metavar="NAME=URL",
    help="A registry that `replicate` jobs may copy to; repeat.",
)
@click.option(
    "--keep",
    type=DURATION,
    default="30d",
    show_default=True,
    metavar="SPAN",
    help="Forget jobs that ended longer ago than this, with their logs; 2d at least.",
)
@click.option("--once", is_flag=True, help="End when no job is open any more.")
@click.option(
    "--until-eof", is_flag=True, help="End when standard input ends, for a parent process that starts it."
)
def work(
    data: Path | None,
    catalog: str | None,
    blobs: str | None,
    devices: tuple[str, ...],
    tags: tuple[str, ...],
    concurrency: int,
    memory: int,
    lease: float,
    poll: float,
    remotes: tuple[str, ...],
    keep: timedelta,
    once: bool,
    until_eof: bool,
) -> None:
    """Run jobs.

    A runner is trusted: it reaches the registry's database and files itself, and gives each job the rights of
    who asked for it. Start as many as there are machines; each step of a job runs in a process of its own on
    one of them.
    """
    from adaptry.jobs.ipc import RegistryLocation
    from adaptry.jobs.runner import RunnerSettings, run_jobs

    require_usage(keep >= timedelta(days=2), "jobs are kept for 2d at least: schedules look a day back")
    folder = folder_of(data, "a runner reaches a registry's rows and files itself, in its folder")
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
    )
    stop = threading.Event()

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    if until_eof:
        threading.Thread(target=_end_at_eof, args=(stop,), daemon=True).start()
    run_jobs(settings, stop, _announce)
    # Threads of the engine still wait for steps that were given up: they have nothing to save.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextlib.contextmanager
def runner_process(data: Path, catalog: str | None, blobs: str | None) -> Iterator[None]:
    """A runner in a process of its own for exactly as long as the block, however this process ends.

    Raises `MissingDependency`.
    """
    if importlib.util.find_spec("dbos") is None:
        raise MissingDependency("running jobs needs dbos: pip install 'adaptry[jobs]'")
    words = [sys.executable, "-m", "adaptry_cli", "work", "--data", str(data), "--until-eof"]
    environ = {name: value for name, value in os.environ.items() if name != "ADAPTRY_CATALOG_FILE"}
    # Not among the words, which everybody on the machine can read.
    environ |= {"ADAPTRY_CATALOG": catalog} if catalog else {}
    environ |= {"ADAPTRY_BLOBS": blobs} if blobs else {}
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environ)
    try:
        yield
    finally:
        process.communicate()  # closes its input, which ends it


def _end_at_eof(stop: threading.Event) -> None:
    while sys.stdin.buffer.read(1 << 16):
        continue
    stop.set()


def _announce(runner: RunnerInfo) -> None:
    print_out(runner.id)
    print_err(
        f"runs up to {runner.concurrency} at once in {format_size(runner.memory)}, on"
        f" {', '.join(('the processor', *runner.devices))}"
    )
    print_err("Ctrl-C stops it; others go on with what it was at")


def _remote(text: str) -> tuple[str, str]:
    name, _, url = text.partition("=")
    if not name or not url:
        raise Invalid(f"not a registry to copy to: {text[:200]!r} (write NAME=URL)")
    return name, url
