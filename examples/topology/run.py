"""Starts the services of compose.yaml as processes, for machines without a container engine: `python3 run.py
FOLDER`.

Everything is read from compose.yaml: commands, environment, secrets, health checks, order, restarts. Linux
only. It needs the programs (PostgreSQL, SeaweedFS, Caddy, adaptry) and the secrets that make_secrets.py
makes.

Prints the balancer's address when all services are healthy, and stops everything at SIGINT or SIGTERM.
FOLDER/state.json lists processes, addresses and health. Data, logs and caches are in FOLDER too.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

import arguments
import programs
from claims import Taken, claim_folder, end_leftovers
from compose import Health, Service, claim_network, environment_of

_MIN_DELAY, _MAX_DELAY = 0.1, 60.0  # seconds between two starts, as in Docker: doubled each time
_LASTED = 10.0  # after running this long, the pause starts at the shortest again
_LOOK = 0.25


class Topology:
    """Processes by service, each started, watched and restarted by its own thread."""

    def __init__(self, services: list[Service], folder: Path) -> None:
        self.services = services
        self.folder = folder
        self.stopping = threading.Event()
        self._path = programs.search_path()
        self._changed = threading.Condition()
        self._state: dict[str, dict[str, object]] = {
            one.name: {"pid": None, "address": one.address, "health": "starting", "starts": 0, "exit": None}
            for one in services
        }
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._threads = [
            threading.Thread(target=self._keep, args=(one,), name=one.name, daemon=True) for one in services
        ]

    @property
    def balancer(self) -> str:
        """The topology's address."""
        return f"{self._state['balancer']['address']}:8750"

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def is_well(self) -> bool:
        """Whether all long-running services are healthy, and all one-time services have succeeded."""
        return all(self._is(one.name, "well") for one in self.services)

    def wait(self) -> bool:
        """Waits until all services are healthy or the topology must stop; returns whether they are
        healthy.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.is_well() or self.stopping.is_set())
        return not self.stopping.is_set()

    def stop(self) -> None:
        """Stops everything, dependent services first."""
        self.stopping.set()
        left = list(self.services)
        while left:
            needed = {other for one in left for other in one.depends_on}
            ending = [one for one in left if one.name not in needed]
            left = [one for one in left if one.name in needed]
            for one in ending:
                self._signal(one, signal.SIGTERM)
            for one in ending:
                thread = self._threads[self.services.index(one)]
                thread.join(one.grace)
                self._signal(one, signal.SIGKILL)
                thread.join()
        programs.tidy(self.services)

    def _keep(self, service: Service) -> None:
        """Runs one service: waits for its dependencies, starts it and restarts it until the end."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopping.is_set() or self._may_start(service))
        pause = _MIN_DELAY
        while not self.stopping.is_set():
            began = time.monotonic()
            code = self._run(service)
            self._tell(service, pid=None, exit=code, health="ended")
            if code and not self.stopping.is_set():
                log = self.folder / "logs" / f"{service.name}.log"
                print(f"{service.name} ended with {code}; see {log}", file=sys.stderr, flush=True)
            if service.restart == "no" or (service.restart == "on-failure" and code == 0):
                return
            pause = _MIN_DELAY if time.monotonic() - began > _LASTED else min(pause * 2, _MAX_DELAY)
            self.stopping.wait(pause)

    def _run(self, service: Service) -> int:
        """Runs the process to its end; returns the exit code."""
        try:
            command, user = programs.started_with(service)
            with (self.folder / "logs" / f"{service.name}.log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    env=environment_of(service, self._path),
                    user=user,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C reaches only this process, which stops them in order
                )
        except (OSError, RuntimeError) as error:
            print(f"{service.name}: {error}", file=sys.stderr)
            return 1
        self._tell(service, pid=process.pid, starts=self._starts(service) + 1, health="starting", exit=None)
        if service.health is None:
            self._tell(service, health="running")
        try:
            return self._watch(service, process)
        finally:
            _end_group(process)

    def _watch(self, service: Service, process: subprocess.Popen[bytes]) -> int:
        """Checks its health until it ends; returns the exit code. A new process is checked often, and may
        fail at first.
        """
        health = service.health
        if health is None:
            return process.wait()
        young_until, failed = time.monotonic() + health.start_period, 0
        while True:
            failed = 0 if self._passes(service, health) else failed + 1
            if failed == 0:
                self._tell(service, health="healthy")
            elif failed >= health.retries and time.monotonic() > young_until:
                self._tell(service, health="unhealthy")
            try:
                return process.wait(health.interval if failed == 0 else min(_LOOK, health.interval))
            except subprocess.TimeoutExpired:
                continue

    def _passes(self, service: Service, health: Health) -> bool:
        try:
            test = subprocess.run(
                programs.health_command(health.test),
                env=environment_of(service, self._path),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=health.timeout,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return test.returncode == 0

    def _may_start(self, service: Service) -> bool:
        return all(self._is(other, condition) for other, condition in service.depends_on.items())

    def _is(self, name: str, condition: str) -> bool:
        """Whether a service (or each copy of it) meets the condition of a dependent service, or of `well`."""
        for one in self.services:
            if one.name != name and one.name.rpartition("-")[0] != name:
                continue
            state = self._state[one.name]
            has_ended_well = state["health"] == "ended" and state["exit"] == 0
            works = state["health"] == ("running" if one.health is None else "healthy")
            is_so = {
                "service_started": state["starts"] != 0,
                "service_healthy": works,
                "service_completed_successfully": has_ended_well,
                "well": has_ended_well if one.restart in ("no", "on-failure") else works,
            }
            if not is_so[condition]:
                return False
        return True

    def _starts(self, service: Service) -> int:
        starts = self._state[service.name]["starts"]
        assert isinstance(starts, int)
        return starts

    def _signal(self, service: Service, number: signal.Signals) -> None:
        pid = self._state[service.name]["pid"]
        if isinstance(pid, int):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return

    def _tell(self, service: Service, **news: object) -> None:
        """Updates a service's state, for waiting threads and in the file."""
        with self._changed:
            self._state[service.name].update(news)
            draft = self.folder / "state.json.part"
            draft.write_text(json.dumps(self._state, indent=1))
            draft.replace(self.folder / "state.json")
            self._changed.notify_all()


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and everything that it started, as in a container."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> int:
    options = arguments.options(__doc__.splitlines()[0])
    folder = options.folder.absolute()
    try:
        _folder, (network, _network) = _claimed(folder), claim_network()  # locked until this process ends
        topology = Topology(arguments.services(options, folder, network), folder)
    except (Taken, arguments.Unfit) as error:
        print(error, file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=topology.stop).start())
    topology.start()
    if topology.wait():
        print(f"http://{topology.balancer}", flush=True)
    while not topology.stopping.wait(1.0):
        pass
    topology.stop()
    return 0


def _claimed(folder: Path) -> IO[str]:
    """Locks the folder and removes temporary files of an earlier run. Raises `Taken`, `arguments.Unfit`."""
    try:
        claim = claim_folder(folder)
        end_leftovers(folder)
    except OSError as error:
        raise arguments.Unfit(f"cannot write to {folder}: {error.strerror}; take another folder") from error
    # A container's private files are new each time; these must be too, since addresses change and would be
    # remembered in them.
    shutil.rmtree(folder / "own", ignore_errors=True)
    return claim


if __name__ == "__main__":
    sys.exit(main())
