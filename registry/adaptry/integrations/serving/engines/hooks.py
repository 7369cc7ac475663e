"""The operator's commands for engines that need more than HTTP: to restart, and to convert adapters.

Commands run without a shell. A command that fails raises `CheckFailed` with the last line of its output.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from adaptry import __version__
from adaptry.core.errors import CheckFailed, Invalid, Unavailable
from adaptry.core.files.durable import write_error
from adaptry.core.lazy_dataclass import dataclass

_TIMEOUT = 600.0
_POLL_INTERVAL = 0.2


@dataclass(frozen=True, slots=True)
class OperatorCommands:
    """`restart` restarts the engine, with ADAPTRY_ADAPTERS set to the path of `list_file`, which has one
    adapter file per line. `prepare` converts the folder `{folder}` to `{file}`: a file, or a folder that
    contains it, as `adaptry export` writes."""

    list_file: Path = Path()
    restart: tuple[str, ...] = ()
    prepare: tuple[str, ...] = ()

    def write_adapter_list(self, files: Mapping[str, str]) -> None:
        """Writes the list for the next start, if there is a restart command. Raises `StorageFull`,
        `Unavailable`."""
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
                "this engine changes its adapters only at a restart: pass the command (--restart COMMAND)"
            )
        _run(self.restart, {"ADAPTRY_ADAPTERS": str(self.list_file)})
        until = time.monotonic() + _TIMEOUT
        while not is_up():
            if time.monotonic() > until:
                raise Unavailable(
                    f"the engine does not answer {_TIMEOUT:.0f} s after {shlex.join(self.restart)}"
                )
            time.sleep(_POLL_INTERVAL)

    def prepared_path(self, folder: Path, name: str) -> Path:
        """The path of the converted file of an adapter's folder, inside the cache entry, so that both are
        evicted together. Another command has another file, and so does another program under the same
        command.
        """
        words = (*self.prepare, *_program_stamps(self.prepare))
        made_by = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
        return folder.parent / f"{Path(name).stem}-{made_by}{Path(name).suffix}"

    def prepare_file(self, folder: Path, name: str) -> Path:
        """Converts an adapter's folder to the file at `prepared_path`. Raises `CheckFailed`, with the last
        line of the command's output."""
        file = self.prepared_path(folder, name)
        if file.is_file():
            return file
        if not self.prepare:
            raise CheckFailed(
                f"this engine loads {name}, not PEFT's folder: pass a command that creates it (--prepare)"
            )
        temporary = folder.parent / f".{os.getpid()}.{name}"
        words = {"{folder}": str(folder), "{file}": str(temporary)}
        try:
            _run(tuple(words.get(word, word) for word in self.prepare), {})
            made = next(temporary.glob(f"*{file.suffix}"), temporary) if temporary.is_dir() else temporary
            if not made.is_file():
                raise CheckFailed(f"{shlex.join(self.prepare)} wrote no {file.suffix} file from {folder}")
            made.replace(file)
        finally:  # a command may have written a whole model, and is tried again
            shutil.rmtree(temporary, ignore_errors=True)
        return file


NO_COMMANDS = OperatorCommands()
"""For an engine that cannot be restarted."""
NO_NAMES: Mapping[str, str] = MappingProxyType({})
"""For a worker that has loaded nothing yet."""


def parse_command(text: str | None) -> tuple[str, ...]:
    """Splits a command into words. Raises `Invalid` if a quotation is not closed."""
    try:
        return tuple(shlex.split(text or ""))
    except ValueError as error:
        raise Invalid(f"not a command: {text!r} ({error})") from error


def _program_stamps(command: tuple[str, ...]) -> list[str]:
    """Data that distinguish a command's programs from earlier ones: the size and time of its executable and
    of its other files (a script), and the version of Adaptry, which may be run as a module."""
    executables = [path for word in command[:1] if (path := shutil.which(word))]
    files = map(_regular_file, (*executables, *command[1:]))
    return [__version__, *(f"{file.st_size} {file.st_mtime_ns}" for file in files if file)]


def _regular_file(path: str) -> os.stat_result | None:
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # most words of a command are not paths
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _run(command: tuple[str, ...], more: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CheckFailed(f"cannot run {shlex.join(command)}: {error}") from error
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        raise CheckFailed(
            f"{shlex.join(command)} ended with {done.returncode}: {output[-1][:500] if output else 'nothing'}"
        )
