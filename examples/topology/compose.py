"""Reads compose.yaml as processes of this machine: each service's command, with names and paths of this
machine.

Each service has its own loopback address (Linux answers to all of 127.0.0.0/8), so its ports stay those of
the file, and two topologies never collide. Names of services become addresses, and paths in a container
become folders and files.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@dataclass(frozen=True)
class Health:
    """A command that checks whether a service works, with its interval, timeout and retries; times in
    seconds.
    """

    test: list[str]
    interval: float
    timeout: float
    retries: int
    start_period: float


@dataclass(frozen=True)
class Service:
    """One process: `command` in `environment`, started after the services in `depends_on`. It listens on
    `address`.
    """

    name: str
    image: str
    address: str
    command: list[str]
    environment: dict[str, str]
    places: Mapping[str, Path]
    depends_on: Mapping[str, str]
    restart: str
    grace: float
    health: Health | None


def claim_network() -> tuple[str, socket.socket]:
    """A prefix of addresses that no other run uses as long as the socket is open."""
    while True:
        network = f"127.{16 + secrets.randbelow(230)}.{secrets.randbelow(250)}"
        claim = socket.socket()
        try:
            claim.bind((f"{network}.1", 8750))
            claim.listen()
        except OSError:
            claim.close()
            continue
        return network, claim


def read(
    compose: Path, folder: Path, variables: Mapping[str, str], profiles: frozenset[str], network: str
) -> list[Service]:
    """The services to start, with their places in `folder` and addresses in `network`. (`Any`, below:
    YAML.)
    """
    text = re.sub(
        r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], compose.read_text()
    )
    document = yaml.safe_load(text)
    wanted = {
        name: one
        for name, one in document["services"].items()
        if profiles.issuperset(one.get("profiles", ()))
    }
    addresses = {name: f"{network}.{number}" for number, name in enumerate(wanted, 10)}
    for name, one in wanted.items():
        shared = str(one.get("network_mode", "")).removeprefix("service:")
        addresses[name] = addresses.get(shared, addresses[name])  # one loopback interface for both
    found = []
    for name, one in wanted.items():
        copies = one.get("deploy", {}).get("replicas", 1)
        for number in range(1, copies + 1):
            copy = name if copies == 1 else f"{name}-{number}"
            places = _places(copy, one, document, compose.parent, folder, addresses)
            found.append(_service(copy, one, places, addresses[name], addresses, _fixed(wanted)))
    return found


def _fixed(services: Mapping[str, Any]) -> list[str]:
    """The addresses of services in the file's networks. On this machine all of them call from 127.0.0.1,
    regardless of their own address.
    """
    networks = [one["networks"] for one in services.values() if isinstance(one.get("networks"), dict)]
    return [
        options["ipv4_address"] for each in networks for options in each.values() if "ipv4_address" in options
    ]


def _service(
    name: str,
    one: dict[str, Any],
    places: dict[str, Path],
    address: str,
    addresses: Mapping[str, str],
    fixed: list[str],
) -> Service:
    def here(text: object) -> str:
        """A text of the file, with names and paths of this machine."""
        meant = _with_places(_with_addresses(str(text), address, addresses), places)
        return "127.0.0.1" if meant in fixed else meant

    environment = {key: here(value) for key, value in one.get("environment", {}).items()}
    depends = one.get("depends_on", {})
    if isinstance(depends, list):
        depends = {other: {"condition": "service_started"} for other in depends}
    return Service(
        name=name,
        image=one["image"],
        address=address,
        command=[here(word) for word in [*one.get("entrypoint", ()), *one.get("command", ())]],
        environment=environment,
        places=places,
        depends_on={other: options["condition"] for other, options in depends.items()},
        restart=one.get("restart", "no"),
        grace=_seconds(one.get("stop_grace_period", "10s")),
        health=_health(one["healthcheck"], here) if "healthcheck" in one else None,
    )


def _health(check: dict[str, Any], here: Any) -> Health:
    kind, *words = check["test"]
    test = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
    return Health(
        [here(word) for word in test],
        _seconds(check.get("interval", "30s")),
        _seconds(check.get("timeout", "30s")),
        check.get("retries", 3),
        _seconds(check.get("start_period", "0s")),
    )


def _places(
    name: str,
    one: dict[str, Any],
    document: dict[str, Any],
    root: Path,
    folder: Path,
    addresses: Mapping[str, str],
) -> dict[str, Path]:
    """The path on this machine of each path in a container: shared volumes, private folders, secrets,
    configurations.
    """
    found: dict[str, Path] = {}
    for place in [*one.get("volumes", ()), *one.get("tmpfs", ())]:
        source, _, target = place.rpartition(":")
        found[target] = folder / "volumes" / source if source else folder / "own" / name / target.strip("/")
    for path in found.values():
        path.mkdir(parents=True, exist_ok=True)
    for secret in one.get("secrets", ()):
        found[f"/run/secrets/{secret}"] = _secret(
            root / document["secrets"][secret]["file"], folder / "secrets", addresses
        )
    for config in one.get("configs", ()):
        source = root / document["configs"][config["source"]]["file"]
        path = folder / "own" / name / source.name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A configuration names services by name and port, and listens on every address.
        text = _with_addresses(source.read_text(), addresses[name], addresses)
        path.write_text(re.sub(r"(?m)^:\d+ \{$", rf"\g<0>\n\tbind {addresses[name]}", text))
        found[config["target"]] = path
    return found


def _secret(source: Path, folder: Path, addresses: Mapping[str, str]) -> Path:
    """The secret's file, or an adapted copy if it names a service."""
    text = source.read_text()
    meant = _with_addresses(text, "", addresses)
    if meant == text:
        return source.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / source.name
    path.write_text(meant)
    return path


def _with_addresses(text: str, own: str, addresses: Mapping[str, str]) -> str:
    if own:
        text = re.sub(r"(?<![\d.])(0\.0\.0\.0|127\.0\.0\.1)(?![\d.])", own, text)
    for name, address in addresses.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?=:\d)|(?<==){re.escape(name)}$", address, text)
    return text


def _with_places(text: str, places: Mapping[str, Path]) -> str:
    if not places:
        return text
    # Replaced in one pass, since a path on this machine may contain another path.
    targets = "|".join(re.escape(target) for target in sorted(places, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.-])({targets})(?![\w.-])", lambda found: str(places[found[1]]), text)


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def environment_of(service: Service, path: str) -> dict[str, str]:
    """The environment of a service: that of the file, and from this machine only variables that locate
    programs and certificates.
    """
    passed = ("HOME", "LANG", "LC_ALL", "SSL_CERT_FILE", "OMP_NUM_THREADS")
    kept = {name: os.environ[name] for name in passed if name in os.environ}
    temporary = {"TMPDIR": str(service.places["/tmp"])} if "/tmp" in service.places else {}
    return {**kept, **temporary, "PATH": path, **service.environment}
