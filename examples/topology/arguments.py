"""The arguments of run.py and the services that they select; or an error that explains why nothing can be
started.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

import programs
import yaml
from compose import Service, read

_ROOT = Path(__file__).resolve().parents[2]


class Unfit(Exception):
    """Nothing can be started; the message gives the reason."""


def options(about: str) -> argparse.Namespace:
    """Parses the command line; ends the process after a usage error."""
    known = argparse.ArgumentParser(description=about)
    known.add_argument("folder", type=Path, help="for data, logs and caches; kept for the next start")
    known.add_argument("--compose", type=Path, default=_ROOT / "compose.yaml")
    known.add_argument("--profile", action="append", default=[], help="services that are optional; repeat")
    known.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="SERVICE:NAME=VALUE",
        help="as a file of overrides would; repeat",
    )
    return known.parse_args()


def services(options: argparse.Namespace, folder: Path, network: str) -> list[Service]:
    """The services to start, in the order of the file. Raises `Unfit`."""
    found = _read(options.compose, folder, frozenset(options.profile), network)
    if "balancer" not in {one.name for one in found}:
        raise Unfit(f"{options.compose} has no service `balancer`, whose address is the topology's")
    _tell(found, options.env)
    if lacking := programs.missing(found):
        raise Unfit("not here: " + "; ".join(lacking))
    return found


def _read(compose: Path, folder: Path, profiles: frozenset[str], network: str) -> list[Service]:
    try:
        return read(compose.absolute(), folder, os.environ, profiles, network)
    except OSError as error:
        why = f"{error.strerror} (make_secrets.py makes the secrets)"
        raise Unfit(f"cannot read {error.filename}: {why}") from error
    except (UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise Unfit(f"cannot understand {compose} and its secrets: {error}") from error


def _tell(found: Sequence[Service], overrides: Sequence[str]) -> None:
    """Adds the values of `--env` to the services' environments."""
    by_name = {one.name: one for one in found}
    for override in overrides:
        service, _, setting = override.partition(":")
        if service not in by_name or not re.fullmatch("[^=]+=.*", setting):
            names = ", ".join(sorted(by_name))
            raise Unfit(f"not SERVICE:NAME=VALUE: {override} (services are {names})")
        name, _, value = setting.partition("=")
        by_name[service].environment[name] = value
