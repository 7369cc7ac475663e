"""`adaptry jobs` without a runner: invalid requests are refused at once, and the output states why a job
waits.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("out")

TIES = ("combine", "inputs=acme/tone", "inputs=acme/voice=0.5", "to=acme/both", "method=ties")


def test_an_unknown_method_or_parameter_is_refused_on_submission(run, answer) -> None:
    told = run("jobs", "submit", *TIES[:-1], "method=nonsense", code=2).stderr
    assert "unknown method 'nonsense' (one of: linear, " in told
    told = run("jobs", "submit", *TIES, 'parameters={"loudness": 11}', code=2).stderr
    assert "ties has no parameter 'loudness'" in told
    assert answer("jobs", "ls") == []


def test_a_missing_input_of_a_job_is_a_warning(run, answer) -> None:
    run("push", "./out", "acme/tone")
    told = run("jobs", "submit", *TIES).stderr
    assert "no adapter acme/voice; the job fails unless it exists when the job starts" in told
    assert "acme/tone" not in told
    assert [job["state"] for job in answer("jobs", "ls")] == ["queued"]


def test_a_job_without_a_suitable_runner_shows_why_it_waits(run) -> None:
    asked = run("jobs", "submit", "verify", "--tag", "eu")
    assert "the job waits: no runner is running" in asked.stderr
    assert "no runner is running" in run("jobs", "show", asked.stdout.strip()).stdout


def test_a_runner_with_less_memory_than_any_step_takes_does_not_start(run) -> None:
    told = run("work", "--memory", "1B", code=2).stderr
    assert "each needs at least 64 MiB" in told


@pytest.mark.slow
def test_a_runner_with_a_device_that_torch_cannot_use_does_not_start(run) -> None:
    pytest.importorskip("torch")
    for device in ("hpu", "xpu"):
        told = run("work", "--device", device, "--device", "cpu", "--once", code=2).stderr
        assert f"torch cannot use the device '{device}' here" in told
        assert f"without --device {device}" in told
