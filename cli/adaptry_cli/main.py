"""The `adaptry` command: its commands, the module of each, and what happens when one fails.

No command is imported for `--help`: the table below has every command's module and its line of help.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, NoReturn

import click

from adaptry import __version__
from adaptry.core.display import shorten
from adaptry.core.errors import AdaptryError, MissingDependency, StorageFull
from adaptry_cli.command import Group
from adaptry_cli.exit_codes import FAULT, INTERRUPTED, PIPE_CLOSED, USAGE, exit_code
from adaptry_cli.gc_pause import paused_garbage_collection
from adaptry_cli.streams import encodable, open_standard_streams

_NoCommand: type[click.UsageError] = getattr(click.exceptions, "NoArgsIsHelpError", click.NoSuchOption)
"""A group called without a command, from click 8.2 on: its message is the whole help."""
CommandEntry = tuple[str, str]
"""A command's place (`module:name` in this package) and its line of help."""

COMMANDS: Mapping[str, Mapping[str, CommandEntry]] = {
    "Push, pull and copy adapters": {
        "push": ("push:push", "Store an adapter's files as a new version."),
        "pull": ("pull:pull", "Write a version's files into a folder."),
        "import": (
            "adapter_import:import_",
            "Import adapters from a folder of training runs, or from a hub.",
        ),
        "copy": ("copy:copy", "Copy a version to another name or registry."),
        "mirror": ("mirror:mirror", "Copy versions from another registry, once or continuously."),
        "bundle": ("bundle:bundle", "Move versions to another registry in one file, without a network."),
        "lock": ("lock:lock", "Pin refs to digests in a file."),
    },
    "Find and inspect adapters": {
        "ls": ("ls:ls", "List adapters, or the versions of one."),
        "search": ("search:search", "Find versions by base, method, rank, module, metric and more."),
        "show": ("show:show", "Show everything about a version."),
        "history": ("history:history", "Show the history of an adapter."),
        "events": ("events:events", "Show the events of the registry, as they happen."),
        "lineage": ("lineage:lineage", "Show which versions a version was made from, and how."),
        "diff": (
            "diff:diff",
            "Show the differences between two adapters, or between the last two versions of one.",
        ),
        "similar": ("similar:similar", "Find adapters that are nearly the same."),
        "inspect": (
            "inspect:inspect",
            "Show an adapter's properties, read from its files, and how it can be used.",
        ),
        "check": ("check:check", "Check an adapter, alone, against a base, or for an engine."),
    },
    "Describe and release adapters": {
        "create": ("create:create", "Create an empty adapter."),
        "edit": ("edit:edit", "Change an adapter's description, tags or visibility."),
        "rename": ("rename:rename", "Rename an adapter."),
        "delete": ("delete:delete", "Delete an adapter and all of its versions."),
        "metrics": ("metrics:metrics", "Log and show metrics of a version."),
        "evidence": ("evidence:evidence", "Add and show results of evaluations."),
        "eval": (
            "evaluation:eval_",
            "Evaluate a version with lm-eval, and add the results to it as evidence.",
        ),
        "alias": ("alias:alias", "Point aliases such as prod and staging at versions."),
        "policy": ("policy:policy", "Set and try out the conditions for moving an alias."),
        "approve": (
            "approve:approve",
            "Approve the move of an alias (prod) from its current version to another.",
        ),
        "promotion": (
            "promotion:promotion",
            "List, show and replay decisions about moves of aliases that have a policy.",
        ),
        "promote": ("promote:promote", "Move an alias (prod) to a version."),
        "rollback": ("rollback:rollback", "Move an alias back to its previous version."),
    },
    "Withdraw and restore versions": {
        "deprecate": ("deprecate:deprecate", "Mark a version as deprecated."),
        "yank": ("yank:yank", "Take a version out of use."),
        "quarantine": ("quarantine:quarantine", "Withhold a version's files while it is investigated."),
        "revoke": (
            "revoke:revoke",
            "Recall a version: its files can no longer be pulled, and engines unload it.",
        ),
        "restore": ("restore:restore", "Make a version active again, or restore a registry from a backup."),
    },
    "Register base models": {
        "base": ("base:base", "Register base models, and recognise them by content."),
    },
    "Merge, combine and convert": {
        "merge": ("merge:merge", "Merge adapters into their base's weights."),
        "verify-merge": (
            "verify_merge:verify_merge",
            "Prove or refute that a checkpoint is a base plus adapters.",
        ),
        "combine": ("combine:combine", "Combine adapters of one base into one adapter."),
        "stack": ("stack:stack", "Stack adapters into one LoRA that acts like all of them together."),
        "extract": ("extract:extract", "Extract a LoRA from a full fine-tune and its base."),
        "convert": (
            "convert:convert",
            "Convert an adapter of any method to a plain LoRA, or its file to another layout.",
        ),
        "resize": ("resize:resize", "Change the rank of a LoRA."),
    },
    "Serve adapters with inference engines": {
        "runtime": (
            "runtime:runtime",
            "Show engine rules, plan a server's flags, or compare adapters with a running engine.",
        ),
        "export": ("export:export", "Export an adapter in a form that an engine serves as trained."),
        "follow": ("follow:follow", "Keep an engine's adapters in step with the registry."),
        "cache": ("cache:cache", "Manage the cache of adapters for engines on this machine."),
        "probe": ("probe:probe", "Test whether a running engine applies an adapter as it was trained."),
        "workers": ("workers:workers", "Show the engines, and what each has loaded."),
        "rollout": (
            "rollout:rollout",
            "Move an alias to a version gradually, on more and more workers.",
        ),
        "recall": ("recall:recall", "Show the progress of a version's recall."),
    },
    "Run jobs": {
        "jobs": ("jobs:jobs", "Submit long-running jobs, and follow their progress."),
        "work": ("work:work", "Run the registry's jobs on this machine, and send its webhooks."),
        "runners": ("runners:runners", "List the runners: processes that run jobs."),
    },
    "Manage people and permissions": {
        "token": ("token:token", "Create, list and revoke tokens."),
        "user": ("user:user", "Create, list, disable and enable users and workers."),
        "service-account": (
            "service_account:service_account",
            "Create, list, disable and enable service accounts: programs that belong to a namespace.",
        ),
        "publisher": (
            "publisher:publisher",
            "Let jobs of a CI system push to an adapter without a stored token.",
        ),
        "issuer": (
            "issuer:issuer",
            "Trust, list and remove issuers of ID tokens for CI jobs; administrators only.",
        ),
        "sso": ("sso:sso", "Map groups of the identity provider, and link its users; administrators only."),
        "group": ("group:group", "Create, change, list and delete groups; administrators only."),
        "member": ("member:member", "Add, list and remove the members of a namespace."),
        "quota": (
            "quota:quota",
            "Show and set limits on the storage and requests of namespaces and principals.",
        ),
        "grant": (
            "grant:grant",
            "Grant single actions and roles on adapters, namespaces or everything; list and remove grants.",
        ),
        "access": ("access:access", "Explain who may do what."),
        "audit": ("audit:audit", "Show, export and verify the audit log."),
        "admin": (
            "admin:admin",
            "Recover access to a registry, or replace its audit key, on its own machine.",
        ),
    },
    "Run a registry": {
        "serve": ("serve:serve", "Serve the registry over HTTP."),
        "open": ("open:open_page", "Open an adapter's page in a browser."),
        "webhook": (
            "webhook:webhook",
            "Send a namespace's events to other systems, signed, and inspect the deliveries.",
        ),
        "uploads": ("uploads:uploads", "List and discard open uploads."),
        "backup": (
            "backup:backup",
            "Back up a registry: its catalog as of one moment, and every file that it refers to.",
        ),
        "verify": ("verify:verify", "Look for damage in the registry."),
        "repair": ("repair:repair", "Repair what `adaptry verify` finds."),
        "gc": ("gc:gc", "Delete files that no version needs."),
        "migrate": (
            "migrate:migrate",
            "Update the schema of a registry's catalog, or move the catalog into PostgreSQL.",
        ),
    },
    "Set up this machine": {
        "demo": ("demo.story:demo", "Show the main features on a real model."),
        "doctor": ("doctor:doctor", "Check that this machine and the registry work."),
        "login": ("login:login", "Save a token for a server."),
        "logout": ("logout:logout", "Delete the saved token for a server."),
        "whoami": ("whoami:whoami", "Show your identity and role."),
        "completion": ("completion:completion", "Print a script that completes commands in your shell."),
    },
}


class LazyGroup(Group):
    """A group whose commands are imported when they are called, and whose errors are sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for section in COMMANDS.values() for name in section]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for section in COMMANDS.values():
            if cmd_name in section:
                module, name = section[cmd_name][0].split(":")
                command = getattr(_imported(f"adaptry_cli.{module}"), name)
                assert isinstance(command, click.Command)
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in section.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            ctx.exit(PIPE_CLOSED)
        return result

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Runs a command and exits: with a code of the table, never a traceback. (`Any`: click's own.)"""
        open_standard_streams()
        if "_ADAPTRY_COMPLETE" in os.environ:
            from adaptry_cli.completion import register_completions

            register_completions()
        options = {"prog_name": "adaptry", **options, "standalone_mode": False}
        try:
            result = super().main(*args, **options)
            sys.exit(result if isinstance(result, int) else 0)
        except click.ClickException as error:
            sys.exit(_print_usage_error(error))
        except (KeyboardInterrupt, click.Abort):  # before the command began, or once more while it ended
            click.echo("interrupted", err=True)
            sys.exit(INTERRUPTED)
        except AdaptryError as error:
            _print_error(error.message)
            sys.exit(exit_code(error))
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                sys.exit(_print_disk_full(error))
            if problem := _describe_outside_problem(error):
                _print_error(problem)
                sys.exit(USAGE)
            from adaptry_cli.broken_package import broken_package

            if package := broken_package(error):
                _print_error(
                    f"the package {package} is installed, but cannot be imported ({error});"
                    f" repair it, or reinstall it: pip install --force-reinstall {package}"
                )
                sys.exit(exit_code(MissingDependency("")))
            if os.environ.get("ADAPTRY_DEBUG"):
                raise
            _print_error(
                f"{type(error).__name__}: {error} (this is a bug in Adaptry; ADAPTRY_DEBUG=1 shows where)"
            )
            sys.exit(FAULT)


_LONG_RUNNING = frozenset(["adaptry_cli.serve", "adaptry_cli.work", "adaptry_cli.follow"])
"""Commands whose plugins are found, for themselves and for the programs that they start."""


def _imported(name: str) -> ModuleType:
    """The module of a command. Short commands look for no plugins of pydantic, which would read the metadata
    of all installed packages.
    """
    if name not in _LONG_RUNNING:
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with paused_garbage_collection():
        return importlib.import_module(name)


def _print_usage_error(error: click.ClickException) -> int:
    if isinstance(error, _NoCommand):
        click.echo(encodable(error.format_message(), sys.stderr), file=sys.stderr)
    elif isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(encodable(error.ctx.get_usage(), sys.stderr), file=sys.stderr)
        _print_error(f"{error.format_message()} (see `{error.ctx.command_path} --help`)")
    else:
        _print_error(error.format_message())
    return error.exit_code


def _print_disk_full(error: OSError) -> int:
    """Reports a full disk as an error and not as a bug, even if stdout is a file on that disk."""
    _discard_stdout()
    _print_error(
        f"no space left {f'for {error.filename}' if error.filename else 'where the output goes'}; free some"
        " space and try again"
    )
    return exit_code(StorageFull(""))


def _describe_outside_problem(error: Exception) -> str | None:
    """Describes an error whose cause is a path or an argument, and not Adaptry; None for others."""
    if isinstance(error, OSError) and error.filename and error.errno in _UNUSABLE_PATHS:
        return f"cannot use {shorten(str(error.filename), 100)}: {error.strerror}; choose another path"
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"an argument is not UTF-8 text: {error.object[:200]!a}; only paths may contain other bytes"
    return None


_MAX_WORD = 4096  # PATH_MAX of Linux
_UNUSABLE_PATHS = frozenset([errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.ELOOP])


def _print_error(sentence: str) -> None:
    """Prints the error; words that no name or path can be as long as are cut."""
    from adaptry_cli.output import print_err

    if len(sentence) > _MAX_WORD:
        sentence = " ".join(
            word if len(word) <= _MAX_WORD else f"{word[:100]}…" for word in sentence.split(" ")
        )
    with contextlib.suppress(OSError):  # the disk may be full for messages too
        print_err(f"error: {sentence}")


def _discard_stdout() -> None:
    """Python flushes stdout once more at exit; that output is discarded instead of raising again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


@click.group(
    "adaptry",
    cls=LazyGroup,
    former={"mend": "repair"},
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="`adaptry COMMAND --help` shows a command's options and examples.",
)
@click.version_option(__version__, message="%(version)s")
@click.option(
    "--registry",
    metavar="URL|DIR",
    help="The registry: a server's address or a folder. Default: ADAPTRY_URL, then the embedded registry.",
)
def main(registry: str | None) -> None:
    """Adaptry stores, checks, releases and merges versions of PEFT adapters."""
