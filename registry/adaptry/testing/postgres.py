"""A real PostgreSQL server for tests: started in its own folder, and deleted after them.

It listens on a socket in that folder, and on a port only on request, so that nothing can collide with it. Its
databases compare text by the US English locale, since a catalog must not depend on that. Needs the server's
programs and psycopg.
"""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from adaptry.core.errors import MissingDependency, Unavailable
from adaptry.storage.catalog.database import Catalog

_TIMEOUT = 300  # seconds: after a crash the server flushes every file of its databases before it answers
REMEDY = "no PostgreSQL server here (initdb, pg_ctl): apt-get install postgresql"
_EVERY_LANGUAGE_BUT_C = "LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
_PORT = 5432  # part of the socket's name
NEVER_VACUUMS = ("autovacuum=off",)
"""Settings for a server that ends before its tables need vacuuming. With hundreds of databases, a worker
otherwise looks into one of them ten times a second. (A catalog refuses a server without `fsync`.)
"""
_PLACES = "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin"


def programs() -> Path | None:
    """The folder of the server's programs, the newest if there are several."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    found = [path for place in _PLACES for path in Path("/").glob(place[1:]) if (path / "initdb").exists()]
    return max(found, key=lambda path: path.parent.name, default=None)


class PostgresServer:
    """A running server; `database()` gives the URL of a new database, with an empty catalog in it."""

    def __init__(self, socket: Path, port: int, control: Callable[..., None]) -> None:
        self.socket = socket
        self.port = port
        self._control = control
        self._numbers = itertools.count(1)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket), safe='')}&port={self.port}"

    def crash(self) -> None:
        """The server crashes, and starts again with its durable data."""
        self._control("-m", "immediate", "stop")
        self._control("start")

    def stop(self) -> None:
        """The server crashes permanently."""
        self._control("-m", "immediate", "stop")

    def promote(self) -> None:
        """Promotes a standby to a primary."""
        self._control("promote")

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """The rows that one statement returns, outside any transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def create_empty(self, options: str = _EVERY_LANGUAGE_BUT_C) -> str:
        """The name of a new empty database."""
        name = f"empty_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
        return name

    def create_migrated(self) -> str:
        """The name of a new database with an empty catalog; quick, since the first one is copied."""
        if not self.execute("SELECT 1 FROM pg_database WHERE datname = 'model'"):
            self.execute(f"CREATE DATABASE model TEMPLATE template0 {_EVERY_LANGUAGE_BUT_C}")
            Catalog(self.url("model")).close()
        name = f"registry_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE model")
        return name

    def database(self) -> str:
        return self.url(self.create_migrated())

    @contextmanager
    def temporary_database(self) -> Iterator[str]:
        """A database that is deleted when the block ends, since each takes 12 MB and a suite uses
        hundreds.
        """
        name = self.create_migrated()
        yield self.url(name)
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextmanager
def postgres_server(
    port: int | None = None, standby_of: PostgresServer | None = None, settings: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """A server that runs until the block ends; also at `port` of 127.0.0.1, if given. As a standby, it
    follows another server. It has PostgreSQL's own settings, except for those in `settings`, as in
    `autovacuum=off`.

    Raises `MissingDependency` if the programs are missing, `Unavailable` if they fail.
    """
    found = programs()
    if found is None:
        raise MissingDependency(REMEDY)
    home = Path(tempfile.mkdtemp(prefix="adaptry-postgres-"))
    user = _user()
    try:
        if user:
            shutil.chown(home, user)
        data = home / "data"
        if standby_of:
            source = [
                "-h",
                str(standby_of.socket),
                "-p",
                str(standby_of.port),
                "-U",
                "postgres",
                "-c",
                "fast",
                "-R",
                "-X",
                "stream",
            ]
            _run([found / "pg_basebackup", "-D", data, *source], user)
        else:
            made = ["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "-N"]
            _run([found / "initdb", "-D", data, *made], user)
        addresses = "127.0.0.1" if port else ""
        port = port or _PORT
        options = f"-c listen_addresses='{addresses}' -c port={port} -c unix_socket_directories='{home}'"
        options += "".join(f" -c {setting}" for setting in settings)

        def control(*words: str) -> None:
            timeout = ["-w", "-t", str(_TIMEOUT)]
            _run([found / "pg_ctl", "-D", data, *timeout, "-l", home / "log", "-o", options, *words], user)

        control("start")
        try:
            yield PostgresServer(home, port, control)
        finally:
            with suppress(Unavailable):  # already stopped
                control("-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _user() -> str | None:
    """The user to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _run(command: list[str | Path], user: str | None) -> None:
    done = subprocess.run(
        command,
        user=user,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_TIMEOUT + 10,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"{command[0]} failed with {done.returncode}; see the log of PostgreSQL")
