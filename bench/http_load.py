"""Loads a server with GET requests over persistent connections, by `wrk` (Debian's package `wrk`).

    python bench/http_load.py URL PATH... [--clients 8] [--seconds 5] [--header "Name: value"]

Each client requests the paths in turn, and sends the next request when it has received the whole answer to
the previous one. wrk is one thread in C, which takes a few microseconds for each request, so the server is
the bottleneck. Prints one line of JSON: requests per second, median and 99th percentile in milliseconds, and
the share of a processor that wrk used.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk_requests.lua")


@dataclass(frozen=True)
class Load:
    """The measurements; times in milliseconds. `busy` is wrk's own share of a processor."""

    rate: float
    median: float
    p99: float
    busy: float


def load(url: str, paths: Sequence[str], headers: Mapping[str, str], clients: int, seconds: float) -> Load:
    """Loads a server. Ends the program if a request failed, or if wrk is not installed."""
    if shutil.which("wrk") is None:
        sys.exit("this benchmark needs wrk: apt-get install wrk")
    whole = max(1, round(seconds))  # wrk accepts only whole seconds
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(paths) + "\n")
        file.flush()
        command = ["wrk", "-t", "1", "-c", str(clients), "-d", f"{whole}s", "--timeout", "10s"]
        command += [word for name, value in headers.items() for word in ("-H", f"{name}: {value}")]
        command += ["-s", str(SCRIPT), url, "--", file.name]
        used = processor_seconds()
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=whole + 60)
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("failed"):
        sys.exit(f"requests to {url} failed:\n{done.stdout}")
    return Load(**found, busy=(processor_seconds() - used) / whole)


def processor_seconds() -> float:
    """The processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--header", action="append", default=[])
    asked = parser.parse_args()
    headers = dict(header.split(": ", 1) for header in asked.header)
    print(json.dumps(asdict(load(asked.url, asked.paths, headers, asked.clients, asked.seconds))))


if __name__ == "__main__":
    main()
