"""`adaptry policy`, `approve`, `promotion` and `promote`: refusals with reasons, and replays."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from adaptry.testing.samples import tiny_lora
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import running_server

Run = Callable[..., Result]
Answer = Callable[..., Any]
TIME = "2026-11-28T10-00-00.123"
POLICY = """\
alias: prod
require:
  - eval("caps", "acc").value >= 0.70
  - noninferior("caps", "acc", vs="prod", margin=0.05)   # paired by document
  - comparable("caps", vs="prod")
"""


def write_results(folder: Path, right: int, of: int = 200) -> Path:
    """Writes the files of `lm-eval --log_samples` for a task in which that many documents are answered
    correctly.
    """
    folder.mkdir()
    value = right / of
    results = {
        "results": {"caps": {"acc,none": value, "acc_stderr,none": (value * (1 - value) / (of - 1)) ** 0.5}},
        "higher_is_better": {"caps": {"acc": True}},
        "n-samples": {"caps": {"original": of, "effective": of}},
        "task_hashes": {"caps": "9497"},
        "lm_eval_version": "0.4.13",
        "config": {"peft_sha": ""},
    }
    (folder / f"results_{TIME}.json").write_text(json.dumps(results))
    documents = (
        {"doc_id": place, "doc_hash": f"h{place}", "metrics": ["acc"], "acc": float(place < right)}
        for place in range(of)
    )
    (folder / f"samples_caps_{TIME}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in documents))
    return folder


@pytest.fixture
def measured(run: Run, out: Path, tmp_path: Path) -> Path:
    """Pushes three versions with evidence, with prod at the first, and sets a policy; returns the policy's
    file.
    """
    run("push", "./out", "acme/tone", "--alias", "prod")
    for seed in (7, 8):
        run("push", str(tiny_lora(tmp_path / f"lora-{seed}", seed=seed)), "acme/tone")
    for number, right in ((1, 150), (2, 130), (3, 151)):
        run("evidence", "add", f"acme/tone@{number}", str(write_results(tmp_path / f"lm{number}", right)))
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    run("policy", "set", "acme/tone", str(policy))
    return policy


def test_a_worse_version_is_refused_with_its_numbers_and_a_good_one_is_promoted_and_replayed(
    run: Run, answer: Answer, measured: Path, tmp_path: Path
) -> None:
    refused = run("promote", "acme/tone@2", code=1).stderr
    assert 'not met  eval("caps", "acc").value >= 0.70' in refused
    assert "caps acc: 0.65 against 0.75 at prod (version 1); with 0.95 confidence at most" in refused
    assert 'met      comparable("caps", vs="prod")' in refused
    tried = run("policy", "try", "acme/tone").stdout.splitlines()
    assert [line.split()[:2] for line in tried[1:]] == [["3", "yes"], ["2", "no"], ["1", "yes"]]
    promoted = run("promote", "acme/tone@3")
    assert "prod moved from version 1 to 3" in promoted.stderr
    assert "paired, score test, 200 documents" in promoted.stderr
    (listed,) = answer("promotion", "ls", "acme/tone@prod")
    assert (listed["number"], listed["verdict"]) == (3, "met")
    assert "version 1 of acme/tone" in run("promotion", "show", "1").stdout
    assert "and the registry has the same evidence" in run("promotion", "replay", "1", "--evidence").stderr
    record = tmp_path / "1.json"
    record.write_text(run("promotion", "show", "1", "--json").stdout)
    assert "the same results" in run("promotion", "replay", str(record)).stderr
    record.write_text(record.read_text().replace('"value": 0.755', '"value": 0.655'))
    assert "not_met now, met in the record" in run("promotion", "replay", str(record), code=1).stderr
    measured.write_text(POLICY.replace("0.70", "0.99"))
    run("policy", "set", "acme/tone", str(measured))
    run("rollback", "acme/tone")
    assert answer("promotion", "ls", "acme/tone")[0]["verdict"] == "rollback"


def test_a_second_registry_confirms_a_decision_if_it_has_the_evidence(
    run: Run, measured: Path, tmp_path: Path
) -> None:
    run("promote", "acme/tone@3")
    record, second = tmp_path / "1.json", str(tmp_path / "second")
    record.write_text(run("promotion", "show", "1", "--json").stdout)
    run("create", "other/empty", "--registry", second)
    replay = ("promotion", "replay", str(record), "--evidence", "--registry", second)
    assert "no adapter acme/tone" in run(*replay, code=1).stderr
    run("push", "./out", "acme/tone", "--registry", second)
    run("push", str(tmp_path / "lora-8"), "acme/tone", "--registry", second)
    run("evidence", "add", "acme/tone@1", str(tmp_path / "lm1"), "--registry", second)
    assert "no such evidence for version 3: caps acc 0.755" in run(*replay, code=1).stderr
    run("evidence", "add", "acme/tone@2", str(tmp_path / "lm3"), "--registry", second)
    assert "and the registry has the same evidence" in run(*replay).stderr


def test_a_policy_is_shown_tried_before_it_is_set_and_removed(
    run: Run, answer: Answer, measured: Path
) -> None:
    assert POLICY.splitlines()[2] in run("policy", "show", "acme/tone").stdout
    measured.write_text(POLICY.replace("0.70", "0.99"))
    assert "only 2 of 3" in run("policy", "try", "acme/tone@3", "--policy", str(measured), code=1).stderr
    measured.write_text(POLICY.replace("prod", "live"))
    other = run("policy", "try", "acme/tone@3", "--policy", str(measured), code=2).stderr
    assert "adaptry policy try acme/tone@3 --policy FILE --to live" in other
    assert run("policy", "try", "acme/tone@3", "--policy", str(measured), "--to", "live", code=1).stdout
    measured.write_text(POLICY.replace("eval(", "evl("))
    wrong = run("policy", "set", "acme/tone", str(measured), code=2).stderr
    assert "line 3: column 1: unknown function evl; did you mean eval()?" in wrong
    assert [one["version"] for one in answer("policy", "ls")] == [1]
    run("policy", "rm", "acme/tone")
    assert "was removed" in run("policy", "show", "acme/tone", code=3).stderr
    assert len(answer("policy", "show", "acme/tone", "--history")) == 2
    tried = run("policy", "try", "acme/tone@2")
    assert "acme/tone@prod has no policy, so version 2 is allowed" in tried.stderr
    run("promote", "acme/tone@2")


def test_a_promotion_takes_an_additional_condition_and_an_override(
    run: Run, answer: Answer, measured: Path
) -> None:
    refused = run("promote", "acme/tone@3", "--if", 'eval("caps", "acc").n > 1000', code=1)
    assert "n=200" in refused.stderr
    assert "at least 3 characters" in run("promote", "acme/tone@2", "--override", "x", code=2).stderr
    run("promote", "acme/tone@2", "--override", "the benchmark is broken")
    assert answer("promotion", "ls", "acme/tone")[0]["reason"] == "the benchmark is broken"


def test_an_alias_with_a_policy_does_not_move_without_the_extra(
    run: Run, measured: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptry.core.gates import process

    monkeypatch.setattr(process, "find_spec", lambda name: None)
    refused = run("promote", "acme/tone@3", code=8).stderr
    assert "pip install 'adaptry[gates]'" in refused
    assert "is at version 1" not in refused
    assert "acme/tone@1" in run("show", "acme/tone@prod").stdout


def test_approvals_are_refused_in_a_registry_opened_as_a_folder(run: Run, measured: Path) -> None:
    assert "opened as a folder" in run("approve", "acme/tone@3", code=2).stderr
    refused = run("promote", "acme/tone@3", "--if", 'approvals("release") >= 1', code=1).stderr
    assert "approvals are not possible in a registry that is opened as a folder" in refused


def test_two_of_a_group_approve_through_a_server(
    run: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTRY_HOME", str(tmp_path / "home"))
    policy = tmp_path / "policy.yaml"
    policy.write_text("alias: prod\nrequire: ['approvals(\"release\") >= 2']\n")
    with running_server(ServerSettings(data=tmp_path / "served")) as server:
        monkeypatch.setenv("ADAPTRY_URL", server.url)
        monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
        run("push", "./out", "acme/tone")
        early = run("policy", "set", "acme", str(policy))
        assert "warning: there is no group release" in early.stderr
        run("group", "create", "release")
        assert "warning" not in run("policy", "set", "acme", str(policy)).stderr
        tokens = {}
        for name in ("ann", "bob"):
            run("user", "create", name)
            run("group", "add", "release", name)
            run("member", "set", "acme", name, "--role", "maintainer")
            tokens[name] = run("token", "create", name, "--for", name).stdout.strip()
        assert "it does not count" in run("approve", "acme/tone@1").stderr  # by the user who pushed it
        for name, code in (("ann", 1), ("bob", 0)):
            monkeypatch.setenv("ADAPTRY_TOKEN", tokens[name])
            assert "approved version 1" in run("approve", "acme/tone@1").stderr
            monkeypatch.setenv("ADAPTRY_TOKEN", server.admin)
            moved = run("promote", "acme/tone@1", code=code).stderr
            assert ("1 approval of release" if code else "2 approvals of release") in moved
        assert "void" in run("approve", "acme/tone", "--list").stdout
        none = run("approve", "acme/tone", "--list", "--alias", "staging")
        assert none.stdout == "" and "no one has approved a move of acme/tone@staging" in none.stderr


def test_results_with_another_number_of_examples_in_the_prompt_are_not_comparable(
    run: Run, out: Path, tmp_path: Path
) -> None:
    """Without `--log_samples`, a results file has no hash of the prompts."""
    run("push", "./out", "acme/tone", "--alias", "prod")
    run("push", str(tiny_lora(tmp_path / "lora-7", seed=7)), "acme/tone")
    for number, shots in ((1, 0), (2, 5)):
        folder = write_results(tmp_path / f"lm{number}", 150 + number)
        (folder / f"samples_caps_{TIME}.jsonl").unlink()
        results = folder / f"results_{TIME}.json"
        stated = {**json.loads(results.read_text()), "versions": {"caps": 1.0}, "n-shot": {"caps": shots}}
        results.write_text(json.dumps({**stated, "task_hashes": {}}))
        run("evidence", "add", f"acme/tone@{number}", str(folder))
    policy = tmp_path / "policy.yaml"
    policy.write_text('alias: prod\nrequire:\n  - comparable("caps", vs="prod")\n')
    run("policy", "set", "acme/tone", str(policy))
    refused = run("promote", "acme/tone@2", code=1).stderr
    assert "other settings than prod's (5-shot, not 0-shot)" in refused
