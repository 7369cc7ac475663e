"""The demo's tasks, read from the standard library of the Python interpreter that runs the tests."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from adaptry_cli.demo import tasks
from adaptry_cli.demo.tasks import DemoTask


@pytest.fixture(params=[tasks.package, tasks.summary], ids=lambda make: make.__name__, scope="module")
def task(request: pytest.FixtureRequest) -> DemoTask:
    made: DemoTask = request.param()
    return made


def test_a_task_is_the_same_each_time_in_every_process(task: DemoTask) -> None:
    # Sets of strings are ordered by a hash with a random seed for each process: another process must agree.
    other = f"from adaptry_cli.demo import tasks; print(ascii(tasks.{task.name}()))"
    printed = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == ascii(task)


def test_held_out_examples_are_never_trained_on(task: DemoTask) -> None:
    for part in ("prompt", "completion"):
        if part == "completion" and task.choices:
            continue  # the labels of a classification are shared, of course
        trained = {getattr(example, part) for example in task.train}
        assert not trained & {getattr(example, part) for example in task.held_out}


def test_there_are_enough_examples_for_training_and_evaluation(task: DemoTask) -> None:
    assert len(task.train) >= 800
    assert len(task.held_out) >= 60


def test_a_prompt_and_its_completion_join_without_a_seam(task: DemoTask) -> None:
    for example in task.train + task.held_out:
        assert not example.prompt.endswith(" ")
        assert example.completion.startswith(" ") and example.completion.strip()
        assert len(example.prompt) + len(example.completion) < 600


def test_every_package_has_as_many_held_out_examples_and_nearly_as_many_to_train_on() -> None:
    task = tasks.package()
    held = Counter(example.completion for example in task.held_out)
    train = Counter(example.completion for example in task.train)
    assert set(held) == set(train) == set(task.choices)
    assert set(held.values()) == {8}
    assert min(train.values()) >= 100


def test_better_is_higher_accuracy_and_lower_perplexity() -> None:
    assert tasks.package().is_better(0.8, than=0.5)
    assert tasks.summary().is_better(20.0, than=50.0)


def test_reading_the_tasks_imports_no_torch() -> None:
    code = "import sys; from adaptry_cli.demo import tasks; tasks.package(); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "False"
