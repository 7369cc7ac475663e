"""The demo's commands: the real `adaptry` in separate processes, shown as a user would type them."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from adaptry.core.errors import AdaptryError, Unavailable
from adaptry_cli.demo.narrator import Narrator

_ADAPTRY = (sys.executable, "-m", "adaptry_cli")


class Shell:
    """Runs commands in a folder with an environment, and shows them and their output."""

    def __init__(self, folder: Path, narrator: Narrator, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._narrator = narrator
        clean = {key: value for key, value in os.environ.items() if not key.startswith("ADAPTRY_")}
        self._environ = {**clean, **environ}
        if sys.stdout.isatty():
            self._environ["FORCE_COLOR"] = "1"
            self._environ["COLUMNS"] = str(shutil.get_terminal_size().columns)

    def adaptry(self, *words: str, expect: int = 0, quiet: bool = False) -> str:
        """Runs `adaptry WORDS` and returns its stdout. Any exit code but `expect` ends the demo."""
        if not quiet:
            self._narrator.command(shlex.join(("adaptry", *words)))
        done = subprocess.run(
            (*_ADAPTRY, *words),
            cwd=self._folder,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
        )
        if not quiet:
            self._narrator.output(done.stderr + done.stdout)
        if done.returncode != expect:
            raise AdaptryError(
                f"`adaptry {shlex.join(words)}` ended with {done.returncode}, not {expect}:"
                f" {done.stderr.strip()}"
            )
        if expect and not quiet:
            self._narrator.say(f"(exit code {done.returncode})")
        return done.stdout

    @contextlib.contextmanager
    def server(self, data: Path) -> Iterator[tuple[str, str]]:
        """A server on a free port while the block runs: its address, and its administrator's token."""
        words = ("serve", "--data", str(data), "--port", "0")
        self._narrator.command(shlex.join(("adaptry", *words)))
        log = self._folder / "server.log"
        with log.open("w") as errors:
            process = subprocess.Popen(
                (*_ADAPTRY, *words),
                cwd=self._folder, env=self._environ, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise Unavailable(f"the server did not start; its output is in {log}")
            self._narrator.say(url)
            yield url, (data / "admin-token").read_text().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
            process.stdout.close()
