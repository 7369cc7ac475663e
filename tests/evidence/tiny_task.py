"""Tasks of lm-eval for a tiny model with bytes as tokens, and `adaptry eval` with the real lm-eval."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / ".venvs" / "lm-eval"
MARKS = [
    pytest.mark.heavy,
    pytest.mark.skipif(not (TOOL / "made").exists(), reason=".venvs/lm-eval is missing (make environments)"),
]
DOCUMENTS = 6
_COMMON = """\
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
doc_to_text: "{{prompt}}"
metadata: {version: 1.0}
"""
CHOOSING = """\
task: choosing
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
LIKELY = """\
task: likely
output_type: loglikelihood
doc_to_target: "{{target}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""
WRITING = """\
task: writing
output_type: generate_until
doc_to_target: "{{written}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 6, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""


def write_tasks(folder: Path, written: Sequence[str] = ("x",)) -> Path:
    """Writes a folder with the three tasks. `written` are the expected generations, in order."""
    folder.mkdir()
    rows = (
        {
            "prompt": f"Count {number}: {'ab' * number}",
            "target": " and more",
            "choices": [" one", " two", " three"],
            "answer": number % 3,
            "written": written[number % len(written)],
        }
        for number in range(DOCUMENTS)
    )
    data = folder / "documents.jsonl"
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for name, text in {"choosing": CHOOSING, "likely": LIKELY, "writing": WRITING}.items():
        (folder / f"{name}.yaml").write_text(text + _COMMON.replace("DATA", str(data)))
    return folder


def lm_eval_environment(home: Path, url: str, token: str) -> Mapping[str, str]:
    """The environment of a process that finds the real lm-eval and the registry."""
    return {
        **os.environ,
        "ADAPTRY_URL": url,
        "ADAPTRY_TOKEN": token,
        "PATH": os.pathsep.join([str(TOOL / "bin"), os.environ["PATH"]]),
        "OMP_NUM_THREADS": "1",
        "HF_HOME": str(home / "hf"),
        "XDG_CACHE_HOME": str(home / "cache"),
    }


def eval_command(ref: str, task: str, tasks: Path, base: Path, *more: str) -> list[str]:
    words = [sys.executable, "-m", "adaptry_cli", "eval", ref, "--task", task]
    return [*words, "--include-path", str(tasks), "--base", str(base), *more]


def run_eval(words: Sequence[str], environment: Mapping[str, str], code: int = 0) -> str:
    """The complete output of `adaptry eval`."""
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
