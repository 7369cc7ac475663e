"""The `adaptry` command: which words there are, where each lives, and what happens when one fails.

Nothing is imported for `--help`: the table below holds every command's place and its line of help.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import click

from adaptry import __version__
from adaptry.core.errors import AdaptryError, StorageFull
from adaptry_cli.exit_codes import FAULT, INTERRUPTED, PIPE_CLOSED, exit_code

_NoCommand: type[click.UsageError] = getattr(click.exceptions, "NoArgsIsHelpError", click.NoSuchOption)
"""A group called without a command, from click 8.2 on: its message is the whole help."""
CommandEntry = tuple[str, str]
"""Where a command is (`module:name` inside this package) and its one line of help."""

COMMANDS: Mapping[str, Mapping[str, CommandEntry]] = {
    "Push, pull and copy adapters": {
        "push": ("push:push", "Put an adapter into the registry."),
        "pull": ("pull:pull", "Get an adapter out of the registry."),
        "import": ("hub_import:import_", "Import adapters from a hub."),
        "copy": ("copy:copy", "Copy a version to another name or registry."),
        "mirror": ("mirror:mirror", "Make this registry follow another."),
        "bundle": ("bundle:bundle", "Move versions in one file to a registry without a network."),
        "lock": ("lock:lock", "Pin refs to digests in a file."),
    },
    "Find and inspect adapters": {
        "ls": ("ls:ls", "List adapters, or the versions of one."),
        "search": ("search:search", "Find versions by base, method, rank, module, metric and more."),
        "show": ("show:show", "Show everything about a version."),
        "history": ("history:history", "Show what happened to an adapter."),
        "events": ("events:events", "Show what happens in the registry, as it happens."),
        "lineage": ("lineage:lineage", "Show what a version was made from, and how."),
        "diff": ("diff:diff", "Show what differs between two adapters."),
        "similar": ("similar:similar", "Find adapters that are nearly the same."),
        "inspect": (
            "inspect:inspect",
            "Show what an adapter is, from its files, and what can be done with it.",
        ),
        "check": ("check:check", "Check an adapter, alone, against a base, or for an engine."),
    },
    "Describe and release adapters": {
        "create": ("create:create", "Create an empty adapter."),
        "edit": ("edit:edit", "Change an adapter's description, tags or visibility."),
        "rename": ("rename:rename", "Give an adapter another name."),
        "delete": ("delete:delete", "Delete an adapter."),
        "metrics": ("metrics:metrics", "Log and show metrics of a version."),
        "alias": ("alias:alias", "Name versions: prod, staging and the like."),
        "promote": ("promote:promote", "Move an alias (prod) to a version."),
        "rollback": ("rollback:rollback", "Move an alias back to where it was."),
    },
    "Withdraw and restore versions": {
        "deprecate": ("deprecate:deprecate", "Advise against a version."),
        "yank": ("yank:yank", "Take a version out of use."),
        "quarantine": ("quarantine:quarantine", "Withhold a version's files while it is investigated."),
        "revoke": ("revoke:revoke", "Recall a version: its files are given to nobody any more."),
        "restore": ("restore:restore", "Make a version active again, or restore a registry from a backup."),
    },
    "Register base models": {
        "base": ("base:base", "Register base models by content, and recognise them."),
    },
    "Merge, combine and convert": {
        "merge": ("merge:merge", "Merge adapters into their base's weights."),
        "verify-merge": (
            "verify_merge:verify_merge",
            "Prove or refute that a checkpoint is that base plus those adapters.",
        ),
        "combine": ("combine:combine", "Combine adapters of one base into one adapter."),
        "stack": ("stack:stack", "Stack adapters into one LoRA that acts as all of them together."),
        "extract": ("extract:extract", "Extract a LoRA from a full fine-tune and its base."),
        "convert": (
            "convert:convert",
            "Make a plain LoRA of an adapter of any method, or rewrite its file in another layout.",
        ),
        "resize": ("resize:resize", "Bring a LoRA to another rank."),
    },
    "Serve adapters with inference engines": {
        "runtime": (
            "runtime:runtime",
            "Show engine rules, plan a server's flags, or compare adapters with a running engine.",
        ),
        "export": ("export:export", "Write an adapter as an engine needs it."),
        "follow": ("follow:follow", "Keep an engine's adapters in step with the registry."),
        "cache": ("cache:cache", "Manage the cache of adapters for engines on this machine."),
        "probe": ("probe:probe", "Test whether a running engine answers as an adapter was trained to."),
        "workers": ("workers:workers", "See which engines there are, and what each has loaded."),
        "rollout": (
            "rollout:rollout",
            "Let a version take over an alias on some workers first, then on more.",
        ),
        "recall": ("recall:recall", "See how far the recall of a version has come."),
    },
    "Run jobs": {
        "jobs": ("jobs:jobs", "Submit long-running jobs, and follow their progress."),
        "work": ("work:work", "Run jobs."),
        "runners": ("runners:runners", "List the runners of jobs."),
    },
    "Run a registry": {
        "serve": ("serve:serve", "Serve the registry over HTTP."),
        "token": ("token:token", "Create, list and revoke a server's tokens."),
        "uploads": ("uploads:uploads", "List and drop open uploads."),
        "backup": (
            "backup:backup",
            "Back up a registry: its catalog at one moment, and every file it names.",
        ),
        "verify": ("verify:verify", "Look for damage in the registry."),
        "mend": ("mend:mend", "Repair what `adaptry verify` finds."),
        "gc": ("gc:gc", "Delete files that no version needs any more."),
        "migrate": (
            "migrate:migrate",
            "Bring a registry's catalog to this version's schema, or into PostgreSQL.",
        ),
    },
    "Set up this machine": {
        "demo": ("demo.story:demo", "Show the whole job on a real model."),
        "doctor": ("doctor:doctor", "Check that this machine and the registry are fit for work."),
        "login": ("login:login", "Keep a token for a server."),
        "logout": ("logout:logout", "Forget the token for a server."),
        "whoami": ("whoami:whoami", "Show who you are to the registry."),
        "completion": ("completion:completion", "Print a script that completes commands in your shell."),
    },
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, and whose errors are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if cmd_name in section:
                module, name = section[cmd_name][0].split(":")
                command = getattr(importlib.import_module(f"adaptry_cli.{module}"), name)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            answer = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            ctx.exit(PIPE_CLOSED)
        return answer

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Runs a command and exits: with a code of the table, never a traceback. (`Any`: click's own.)"""
        _open_standard_streams()
        options = {"prog_name": "adaptry", **options, "standalone_mode": False}
        try:
            answer = super().main(*args, **options)
            sys.exit(answer if isinstance(answer, int) else 0)
        except click.ClickException as error:
            sys.exit(_usage(error))
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED)
        except AdaptryError as error:
            _complain(error.message)
            sys.exit(exit_code(error))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                sys.exit(_full(error))
            if os.environ.get("ADAPTRY_DEBUG"):
                raise
            _complain(
                f"{type(error).__name__}: {error} (this is a fault in adaptry; ADAPTRY_DEBUG=1 shows where)"
            )
            sys.exit(FAULT)


def _usage(error: click.ClickException) -> int:
    if not isinstance(error, _NoCommand) and isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(error.ctx.get_usage(), err=True)
        _complain(f"{error.format_message()} (`{error.ctx.command_path} --help` says more)")
    elif isinstance(error, _NoCommand):
        click.echo(error.format_message(), err=True)
    else:
        _complain(error.format_message())
    return error.exit_code


def _full(error: OSError) -> int:
    """A full disk is no fault of ours, least of all where the answer was to go into a file on it."""
    _discard_stdout()
    _complain(
        f"no space left {f'for {error.filename}' if error.filename else 'where the output goes'};"
        " free some and try again"
    )
    return exit_code(StorageFull(""))


def _complain(sentence: str) -> None:
    from adaptry_cli.out import print_err

    with contextlib.suppress(OSError):  # there may be no room for complaints either
        print_err(f"error: {sentence}")


def _open_standard_streams() -> None:
    """What the caller closed (`>&-`) goes nowhere; left closed, the next opened file would be it."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            is_read = name == "stdin"
            descriptor = os.open(os.devnull, os.O_RDONLY if is_read else os.O_WRONLY)
            setattr(sys, name, os.fdopen(descriptor, "r" if is_read else "w"))


def _discard_stdout() -> None:
    """Python flushes stdout once more at exit; let that go nowhere instead of complaining."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(
    "adaptry",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, message="%(version)s")
@click.option(
    "--registry", metavar="URL|DIR", help="The registry to use; else ADAPTRY_URL, else the embedded one."
)
def main(registry: str | None) -> None:
    """Versioned, checked and merged PEFT adapters."""
