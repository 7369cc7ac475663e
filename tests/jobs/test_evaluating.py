"""The evaluation job with the real lm-eval: completed, cancelled, and with a runner that is killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry.registry.job_types.records import JobOrder
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.runners import RunnerProcess, has_steps, start_runner, wait_for_job, wait_until

from ..evidence import tiny_task
from ..vllm import models

pytestmark = tiny_task.MARKS

TIMEOUT = 1800.0  # seconds: lm-eval's imports take twenty, and minutes on a busy machine
TONE = AdapterName.parse("acme/tone")
HELD = '''\
"""Prompts that wait until the file `go` is there; the file `waiting` then has the process."""

import os
import pathlib
import time

PLACE = pathlib.Path(__file__).parent


def prompt(doc):
    (PLACE / "waiting.new").write_text(str(os.getpid()))
    (PLACE / "waiting.new").rename(PLACE / "waiting")
    while not (PLACE / "go").exists():
        time.sleep(0.05)
    return doc["prompt"]
'''


class Evaluation:
    """A registry with a version on a stored base, and the tasks of the runner's lm-eval."""

    def __init__(self, folder: Path) -> None:
        self.data, self.tasks = folder / "data", tiny_task.write_tasks(folder / "tasks")
        self.registry: LocalRegistry = open_local(self.data)
        base = open_checkpoint(models.model(folder / "base"))
        register_base(self.registry, base, ("org/tiny",), store=True, cache=folder / "seen")
        self.version = push(self.registry, open_dir(models.adapter(folder / "tone")), TONE).version
        (self.tasks / "held.py").write_text(HELD)
        held = (self.tasks / "choosing.yaml").read_text().replace("task: choosing", "task: held")
        (self.tasks / "held.yaml").write_text(held.replace('"{{prompt}}"', "!function held.prompt"))
        program = folder / "bin" / "lm_eval"
        program.parent.mkdir()
        command = f'"{tiny_task.TOOL}/bin/lm_eval" "$@" --include_path "{self.tasks}"'
        program.write_text(f"#!/bin/sh\nHF_HUB_OFFLINE=1 exec {command}\n")
        program.chmod(0o755)
        self.environ: Mapping[str, str] = {
            "PATH": os.pathsep.join([str(program.parent), os.environ["PATH"]]),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HOME": str(folder),
        }

    def submit(self, task: str) -> str:
        order = JobOrder(kind="evaluate", task={"ref": "acme/tone@1", "tasks": [task]})
        return self.registry.jobs.submit(order).id

    def wait_for_lm_eval(self) -> int:
        """Waits until lm-eval is in the middle of the task `held`; returns its process."""
        wait_until((self.tasks / "waiting").exists, "lm-eval to make its prompts", TIMEOUT)
        process = int((self.tasks / "waiting").read_text())
        assert is_alive(process)
        (self.tasks / "waiting").unlink()
        return process

    def values(self) -> list[str | None]:
        return [one.task for one in self.registry.evidence.list(Ref(TONE)).items]


@pytest.fixture
def evaluation(tmp_path: Path) -> Iterator[Evaluation]:
    made = Evaluation(tmp_path)
    yield made
    made.registry.close()


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_results_of_lm_eval_become_evidence_with_samples(evaluation: Evaluation) -> None:
    job = evaluation.submit("likely")
    assert RunnerProcess(evaluation.data, "--once", environ=evaluation.environ).wait(TIMEOUT) == 0
    done = evaluation.registry.jobs.get(job)
    assert done.state == "done", done.error
    assert done.result is not None
    assert (done.result["version"], done.result["values"]) == ("acme/tone@1", 1)
    (value,) = evaluation.registry.evidence.list(Ref(TONE)).items
    assert (value.task, value.metric, value.n) == ("likely", "perplexity", tiny_task.DOCUMENTS)
    assert value.subject == evaluation.version.digest
    samples = b"".join(evaluation.registry.evidence.read_file(value.id, "samples")).splitlines()
    assert len(samples) == tiny_task.DOCUMENTS
    assert all(json.loads(line)["metrics"] == ["perplexity"] for line in samples)


def test_lm_eval_ends_when_its_job_is_cancelled(evaluation: Evaluation) -> None:
    job = evaluation.submit("held")
    with start_runner(evaluation.data, environ=evaluation.environ) as runner:
        process = evaluation.wait_for_lm_eval()
        evaluation.registry.jobs.cancel(job)
        wait_until(lambda: not has_steps(runner.process.pid), "the step to end")
        wait_until(lambda: not is_alive(process), "lm-eval to end")
    assert evaluation.registry.jobs.get(job).state == "cancelled"
    assert evaluation.values() == []


def test_another_runner_repeats_an_evaluation_whose_runner_was_killed(evaluation: Evaluation) -> None:
    job = evaluation.submit("held")
    with start_runner(evaluation.data, environ=evaluation.environ) as killed:
        process = evaluation.wait_for_lm_eval()
        killed.kill()
        wait_until(lambda: not is_alive(process), "lm-eval to end")
    (evaluation.tasks / "go").touch()
    with start_runner(evaluation.data, environ=evaluation.environ):
        assert wait_for_job(evaluation.registry, job, TIMEOUT).state == "done"
    assert evaluation.values() == ["held"]
