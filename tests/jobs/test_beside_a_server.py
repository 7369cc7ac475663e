"""`adaptry serve --work`: jobs submitted over HTTP are run by a second process, which ends with
the server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import TIMEOUT, wait_until
from adaptry.testing.warm_python import WarmPython, run_warm

COMMAND = (sys.executable, "-m", "adaptry_cli")


@contextmanager
def process(command: list[str], **streams: int) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the block."""
    with WarmPython(command, text=True, **streams) as started:
        try:
            yield started
        finally:
            started.kill()


def test_jobs_are_submitted_over_http_and_run_beside_the_server(busy: LocalRegistry, data: Path) -> None:
    serve = [*COMMAND, "serve", "--data", str(data), "--port", "0", "--work"]
    with process(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        token = (data / "admin-token").read_text().strip()
        environ = {**os.environ, "ADAPTRY_URL": url, "ADAPTRY_TOKEN": token}

        def said(*words: str) -> str:
            run = run_warm([*COMMAND, *words], env=environ, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr
            return run.stdout

        fields = ["source=acme/tone@1", "to=acme/plain", "rank=2"]
        done = json.loads(said("jobs", "submit", "convert", *fields, "--wait", "--json"))
        assert (done["state"], done["result"]["version"]) == ("done", "acme/plain@1")
        assert [job["id"] for job in json.loads(said("jobs", "ls", "--json"))] == [done["id"]]
        assert len(json.loads(said("runners", "--json"))) == 1

        server.kill()  # the runner that it started must notice
    wait_until(lambda: busy.jobs.runners() == (), "the runner to go with its server")


def test_a_job_that_fails_fails_the_call_that_waits_for_it(busy: LocalRegistry, data: Path) -> None:
    words = [
        "jobs",
        "submit",
        "convert",
        "source=acme/nothing",
        "to=acme/plain",
        "--registry",
        str(data),
        "--wait",
    ]
    with (
        process([*COMMAND, *words], stderr=subprocess.PIPE) as waiting,
        process([*COMMAND, "work", "--data", str(data)], stderr=subprocess.DEVNULL) as worker,
    ):
        _, told = waiting.communicate(timeout=TIMEOUT)
        worker.send_signal(signal.SIGTERM)
        worker.wait(TIMEOUT)
    assert waiting.returncode == 3
    assert "no adapter acme/nothing" in told
    assert worker.returncode == 0
