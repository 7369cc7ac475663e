"""`adaptry evidence` and pushes: results become evidence of a version, unmodified and once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

import adaptry
from adaptry.operations.evidence.stored_files import iter_document_scores
from adaptry.storage.connect import connect

Run = Callable[..., Result]
Answer = Callable[..., Any]
TIME = "2026-11-28T10-00-00.123"


def write_results(folder: Path, peft_sha: str = "") -> Path:
    """Writes the files that lm-eval writes for one task: the results, and the values of its two documents."""
    folder.mkdir(exist_ok=True)
    results = {
        "results": {"caps": {"acc,none": 0.5, "acc_stderr,none": 0.35}},
        "higher_is_better": {"caps": {"acc": True}},
        "n-samples": {"caps": {"original": 2, "effective": 2}},
        "lm_eval_version": "0.4.13",
        "config": {"peft_sha": peft_sha},
    }
    (folder / f"results_{TIME}.json").write_text(json.dumps(results))
    documents = (
        {"doc_id": number, "doc_hash": f"h{number}", "metrics": ["acc"], "acc": float(number)}
        for number in (0, 1)
    )
    (folder / f"samples_caps_{TIME}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in documents))
    return folder


def test_results_are_added_listed_shown_and_withdrawn(run: Run, answer: Answer, out: Path) -> None:
    run("push", "./out", "acme/tone")
    lm = write_results(out.parent / "lm")
    added = run("evidence", "add", "acme/tone", str(lm))
    assert "added 1 value to acme/tone@1" in added.stderr
    assert "added 0 values" in run("evidence", "add", "acme/tone", str(lm)).stderr
    (listed,) = answer("evidence", "ls", "acme/tone")
    assert (listed["task"], listed["metric"], listed["value"], listed["n"]) == ("caps", "acc", 0.5, 2)
    run("evidence", "show", "1", "--save-file", "a.json", "--save-samples", "a.jsonl")
    assert Path("a.json").read_bytes() == (lm / f"results_{TIME}.json").read_bytes()
    assert Path("a.jsonl").read_bytes() == (lm / f"samples_caps_{TIME}.jsonl").read_bytes()
    assert "exists already" in run("evidence", "show", "1", "--save-file", "a.json", code=4).stderr
    assert "0.5 ± 0.35" in run("evidence", "show", "1").stdout
    run("evidence", "withdraw", "1", "--reason", "the test set was in the training data")
    assert "the test set was in" in run("evidence", "show", "1").stdout
    assert "was already withdrawn" in run("evidence", "withdraw", "1", "--reason", "again").stderr


def test_values_of_single_documents_can_be_read_later(run: Run, out: Path) -> None:
    run("push", "./out", "acme/tone")
    run("evidence", "add", "acme/tone", str(write_results(out.parent / "lm")))
    with (
        connect(str(Path("adaptry-registry"))) if Path("adaptry-registry").exists() else connect() as registry
    ):
        scores = list(iter_document_scores(registry.evidence, 1))
    assert [(one.key, dict(one.scores)) for one in scores] == [("h0", {"acc": 0.0}), ("h1", {"acc": 1.0})]


def test_a_push_adds_results_in_the_folder_as_evidence_and_reports_that(
    run: Run, answer: Answer, out: Path
) -> None:
    (out / "trainer_state.json").write_text('{"log_history": [{"step": 5, "loss": 1.5}]}')
    write_results(out)
    pushed = run("push", "./out", "acme/tone")
    assert (
        f"added 2 values of results_{TIME}.json, trainer_state.json as evidence of acme/tone@1"
        in pushed.stderr
    )
    assert "left out trainer_state.json" not in pushed.stderr
    assert [one["metric"] for one in answer("evidence", "ls", "acme/tone")] == ["loss", "acc"]
    assert "as evidence" not in run("push", "./out", "acme/tone").stderr


def test_a_malformed_file_of_results_does_not_undo_a_push(run: Run, out: Path) -> None:
    (out / "trainer_state.json").write_text("{")
    pushed = run("push", "./out", "acme/tone")
    assert pushed.stdout.startswith("acme/tone@1 sha256:")
    assert "not added as evidence: trainer_state.json is not JSON" in pushed.stderr


def test_results_that_state_another_revision_are_refused(run: Run, answer: Answer, out: Path) -> None:
    digest = answer("push", "./out", "acme/tone")["version"]["digest"].removeprefix("sha256:")
    other = write_results(out.parent / "other", peft_sha="0" * 40)
    assert (
        "states that it measured revision 0000"
        in run("evidence", "add", "acme/tone", str(other), code=4).stderr
    )
    same = write_results(out.parent / "same", peft_sha=digest[:40])
    run("evidence", "add", "acme/tone", str(same))


def test_samples_without_their_results_are_refused(run: Run, out: Path) -> None:
    run("push", "./out", "acme/tone")
    samples = write_results(out.parent / "lm") / f"samples_caps_{TIME}.jsonl"
    refused = run("evidence", "add", "acme/tone", str(samples), code=2)
    assert f"add it together with results_{TIME}.json" in refused.stderr


def test_python_adds_and_reads_evidence(out: Path, tmp_path: Path) -> None:
    (out / "trainer_state.json").write_text('{"log_history": [{"step": 5, "loss": 1.5}]}')
    with adaptry.connect(str(tmp_path / "registry")) as registry:
        pushed = adaptry.push(registry, out, "acme/tone", metrics={"f1": 0.5})
        (added,) = adaptry.add_evidence(registry, pushed.version, write_results(tmp_path / "lm"))
        assert (added.added, added.subject) == (1, pushed.version.digest)
        found = adaptry.evidence(registry, "acme/tone")
        assert [one.metric for one in found] == ["acc", "loss", "f1"]
        assert [one.value for one in adaptry.evidence(registry, "acme/tone", task="caps")] == [0.5]


@pytest.mark.parametrize("reason", ["", "no"])
def test_a_withdrawal_needs_a_reason_that_others_understand(run: Run, out: Path, reason: str) -> None:
    run("push", "./out", "acme/tone", "--metric", "f1=0.5")
    refused = run("evidence", "withdraw", "1", "--reason", reason, code=2)
    assert "3 to 1024 characters" in refused.stderr
    assert "is a logged metric" in run("evidence", "withdraw", "1", "--reason", "wrong", code=2).stderr
