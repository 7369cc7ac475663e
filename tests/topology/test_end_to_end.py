"""The complete topology: whichever process is killed, acknowledged changes exist and no partial result is
visible.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import urllib3

from adaptry.adapters.adapter import open_dir
from adaptry.core.failpoints import NAMES
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import pull, push
from adaptry.registry.records import PushOptions
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import until

from .processes import SCRIPTS, TopologyProcesses, is_well, new_folder, topology
from .trainer import Trainer, assert_nothing_lost, weights

KILLED = ("api-1", "api-2", "balancer", "postgres", "s3")
PLACES = [name for name in NAMES if name.startswith(("uploads.", "revisions."))]


def test_an_adapter_is_pushed_promoted_and_pulled_through_both_servers(
    running: TopologyProcesses, tmp_path: Path
) -> None:
    registry, name = running.registry(), AdapterName.parse("acme/whole")
    before = {one: running.requests(one) for one in ("api-1", "api-2")}
    lora = open_dir(tiny_lora(tmp_path / "lora"))
    pushed = push(registry, lora, name, options=PushOptions(alias="staging")).version
    registry.aliases.move(name, "prod", pushed.digest, None)
    pull(registry, "acme/whole@prod", tmp_path / "pulled")
    assert weights(tmp_path / "pulled") == weights(tmp_path / "lora")

    def both_answered() -> bool:
        """Waits until both servers answer: after a test killed one, the balancer needs a moment to find it
        again.
        """
        registry.adapters.get(name)
        return all(running.requests(one) > count for one, count in before.items())

    until(both_answered, bool)


def test_addresses_have_the_host_of_the_balancer_regardless_of_other_headers(
    running: TopologyProcesses,
) -> None:
    headers = {"Authorization": f"Bearer {running.admin}", "Host": "registry.example:8750"}
    spoofed = {
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "https",
        "Forwarded": "host=evil.example",
    }
    for number in range(2):  # one for each server
        asked = {"name": f"addressed-{number}", "organization": "acme"}
        address = f"{running.url}/api/repos/create"
        answer = urllib3.request("POST", address, json=asked, headers=headers | spoofed)
        assert answer.json()["url"] == f"http://registry.example:8750/acme/addressed-{number}"


@pytest.mark.heavy
def test_killing_processes_at_random_loses_no_acknowledged_push(
    running: TopologyProcesses, tmp_path: Path
) -> None:
    """Each process is killed eight times, at moments that depend on the progress of the pushes."""
    name = AdapterName.parse("acme/killed-often")
    with Trainer(running.registry(), name, tmp_path) as pushing:
        for round in range(8):
            for service in KILLED:
                pushing.wait_for_more(1 + round % 3)
                running.hurt(service)
    assert_nothing_lost(running.registry(), name, pushing.known, tmp_path)


@pytest.mark.heavy
@pytest.mark.parametrize("place", PLACES)
def test_another_server_continues_after_one_dies_at_a_failpoint(
    can_run: None, tmp_path: Path, place: str
) -> None:
    """The same client completes the push that the server had begun, without noticing the failure.

    Two clients push at once: with one, the order of requests could send each kind always to the same server.
    """
    names = [AdapterName.parse(f"acme/died-{who}") for who in ("one", "two")]
    armed = ("--env", f"api-1:ADAPTRY_FAILPOINT={place}")
    with new_folder() as folder, topology(folder, *armed) as running:
        is_large = place.startswith("uploads.")
        both = [Trainer(running.registry(), name, tmp_path / name.name, is_large=is_large) for name in names]
        with both[0], both[1]:
            running.wait(lambda state: state["api-1"]["starts"] > 1)
            both[0].wait_for_more(4)
        for pushing in both:
            pushing.check()


@pytest.mark.parametrize("service", ["api-1", pytest.param("api-2", marks=pytest.mark.heavy)])
def test_a_server_that_is_replaced_fails_no_request(
    running: TopologyProcesses, tmp_path: Path, service: str
) -> None:
    """Under load, with clients that do not retry, the server finishes its requests and gets no new ones."""
    name = AdapterName.parse(f"acme/replaced-{service}")
    registry = running.registry()
    push(registry, open_dir(tiny_lora(tmp_path / "lora")), name)
    failed: list[str] = []
    done = threading.Event()
    asked = [0]

    def ask() -> None:
        pool = urllib3.PoolManager(retries=False, timeout=30)
        headers = {"Authorization": f"Bearer {running.admin}"}
        posts = 0
        while not done.is_set():
            posts += 1
            for method, path, body in (
                ("GET", f"/api/v1/adapters/{name}/versions/1", None),
                ("POST", f"/api/v1/adapters/{name}/versions/1/metrics", b'{"metrics": {"loss": 1}}'),
            ):
                sent = {**headers, **({"Content-Type": "application/json"} if body else {})}
                try:
                    answer = pool.request(method, running.url + path, body=body, headers=sent)
                except urllib3.exceptions.HTTPError as error:
                    failed.append(f"{method}: {error}")
                    continue
                asked[0] += 1
                if answer.status >= 300:
                    failed.append(f"{method}: {answer.status} {answer.data[:300]!r}")

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(done.set)
        running.hurt(service, signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert failed == []
    assert asked[0] > 20


def test_a_topology_is_not_started_twice_in_one_folder(running: TopologyProcesses) -> None:
    command = [sys.executable, str(SCRIPTS / "run.py"), str(running.folder / "run")]
    environment = {**os.environ, "SECRETS": str(running.folder / "secrets")}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert told.returncode == 1
    assert "runs in" in told.stderr
    assert all(is_well(one) or one["exit"] == 0 for one in running.state().values())


@pytest.mark.heavy
def test_ctrl_c_leaves_no_process(can_run: None) -> None:
    with new_folder() as folder, topology(folder) as running:
        pids = [one["pid"] for one in running.state().values() if one["pid"]]
        assert len(pids) == 7
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(120) == 0
        assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.heavy
def test_processes_of_a_killed_run_are_ended_by_the_next(can_run: None, tmp_path: Path) -> None:
    """Two database servers on one folder would destroy it. Changes that the first acknowledged exist in the
    second.
    """
    name = AdapterName.parse("acme/left")
    with new_folder() as folder, topology(folder) as running:
        with Trainer(running.registry(), name, tmp_path) as pushing:
            pushing.wait_for_more()
        pids = [one["pid"] for one in running.state().values() if one["pid"]]
        running.process.kill()
        running.process.wait()
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == pids
        with topology(folder) as again:
            assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
            assert_nothing_lost(again.registry(), name, pushing.known, tmp_path)


@pytest.mark.heavy
def test_a_topology_killed_and_restarted_has_all_its_data(can_run: None, tmp_path: Path) -> None:
    name = AdapterName.parse("acme/kept")
    with new_folder() as folder:
        with topology(folder) as running, Trainer(running.registry(), name, tmp_path) as pushing:
            pushing.wait_for_more(5)
        with topology(folder) as running:
            assert_nothing_lost(running.registry(), name, pushing.known, tmp_path)
