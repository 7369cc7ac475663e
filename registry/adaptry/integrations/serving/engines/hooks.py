"""What some engines need besides requests: to be started anew, and their adapters in a format of their own.

Both are commands that an operator gives, run without a shell. A command that fails is `CheckFailed`, with what it said last.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from adaptry.core.errors import CheckFailed, Invalid, Unavailable
from adaptry.core.files.durable import write_error

_PATIENCE = 600.0
_EVERY = 0.2


@dataclass(frozen=True, slots=True)
class OperatorCommands:
    """`restart` starts the engine anew; ADAPTRY_ADAPTERS names the file `listed`, a line for each adapter's file. `prepare` makes
    `{file}` of the folder `{folder}`: the file itself, or a folder with it in it, as `adaptry export` does."""

    list_file: Path = Path()
    restart: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()

    def write_adapter_list(self, files: Mapping[str, str]) -> None:
        """The files that the engine is to load when it starts, by name; nobody reads them where nobody starts it. Raises
        `StorageFull`, `Unavailable`."""
        if not self.restart:
            return
        temporary = self.list_file.with_name(f".{self.list_file.name}.new")
        lines = "".join(f"{file}\n" for file in dict.fromkeys(files.values()))
        try:
            self.list_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(lines, encoding="utf-8")
            temporary.replace(self.list_file)
        except OSError as error:
            raise write_error(error, self.list_file) from error

    def run_restart(self, is_up: Callable[[], bool]) -> None:
        """Runs the command and waits until the engine answers. Raises `CheckFailed`, `Unavailable`."""
        if not self.restart:
            raise CheckFailed(
                "this engine changes its adapters only when it is started anew: say how (--restart COMMAND)"
            )
        _run(self.restart, {"ADAPTRY_ADAPTERS": str(self.list_file)})
        until = time.monotonic() + _PATIENCE
        while not is_up():
            if time.monotonic() > until:
                raise Unavailable(
                    f"the engine does not answer {_PATIENCE:.0f} s after {shlex.join(self.restart)}"
                )
            time.sleep(_EVERY)

    def prepare_file(self, folder: Path, name: str) -> Path:
        """The file of that name made of an adapter's folder: beside it, so that it goes when the folder does."""
        file = folder.parent / name
        if file.is_file():
            return file
        if not self.prepare:
            raise CheckFailed(
                f"this engine takes {name} and no folder of PEFT's: say how it is made (--prepare COMMAND)"
            )
        temporary = folder.parent / f".{os.getpid()}.{name}"
        words = {"{folder}": str(folder), "{file}": str(temporary)}
        _run(tuple(words.get(word, word) for word in self.prepare), {})
        made = next(temporary.glob(f"*{file.suffix}"), temporary) if temporary.is_dir() else temporary
        if not made.is_file():
            raise CheckFailed(f"{shlex.join(self.prepare)} made no {file.suffix} of {folder}")
        made.replace(file)
        shutil.rmtree(temporary, ignore_errors=True)
        return file


NO_COMMANDS = OperatorCommands()
"""Of an engine that nobody can start anew."""
NO_NAMES: Mapping[str, str] = MappingProxyType({})
"""Of a worker that has given none yet."""


def parse_command(text: str | None) -> tuple[str, ...]:
    """A command's words. Raises `Invalid` for an open quotation."""
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise Invalid(f"not a command: {text!r} ({error})") from error


def _run(command: tuple[str, ...], more: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"cannot run {shlex.join(command)}: {error}") from error
    if done.returncode:
        configured = (done.stderr or done.stdout).strip().splitlines()
        raise CheckFailed(
            f"{shlex.join(command)} ended with {done.returncode}: {configured[-1][:500] if configured else 'nothing'}"
        )
