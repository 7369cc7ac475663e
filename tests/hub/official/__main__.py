"""Hugging Face's own tests of `huggingface_hub`, run against a real `adaptry serve`, and each failure
classified.

    git clone --branch v1.28.0 https://github.com/huggingface/huggingface_hub
    python -m tests.hub.official --suite huggingface_hub [--python .venvs/hub-official/bin/python] [--write
    docs/hub-suite.md]

Exits with 1 if a test fails that failures.txt does not list, or if a listed one passes. `--only
tests/test_hf_api.py` runs a part. Their tests of the production Hub are left out by their marker: they never
reach a server of ours.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ..checklist_server import ADAPTRY, serving
from .page import page
from .results import Run, compare, read_table

ROOT = Path(__file__).parents[3]
VERSION = "1.28.0"
SECONDS = 120  # for one test
NOT_COLLECTED = (  # tests a script of their repository, found by a path that only their CI sets
    "tests/test_generate_cli_reference.py"
)
USERS = {
    "hubuser": "hubuser",
    "otheruser": "otheruser",
    "enterprise": "enterprise,enterprise-org",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--suite", type=Path, required=True, help=f"a checkout of huggingface_hub at tag v{VERSION}"
    )
    parser.add_argument("--python", type=Path, default=ROOT / ".venvs" / "hub-official" / "bin" / "python")
    parser.add_argument("--only", action="append", metavar="FILE", help="a file of the suite; repeat")
    parser.add_argument("--results", type=Path, help="keep what each test did, as JSON lines")
    parser.add_argument("--write", type=Path, help="write the page of the run")
    asked = parser.parse_args()
    if not (asked.suite / "tests" / "testing_constants.py").is_file():
        parser.error(f"{asked.suite} is not a checkout of huggingface_hub")
    if not asked.python.exists():
        parser.error(f"{asked.python} is missing: `make environments` makes it")
    with tempfile.TemporaryDirectory() as folder:
        results = asked.results or Path(folder) / "results.jsonl"
        results.write_text("")
        run_suite(
            asked.suite.absolute(), asked.python, results.absolute(), asked.only or ["tests"], Path(folder)
        )
        run = Run.read(results)
    if not run.outcomes:
        print("no test ran; what pytest said is above", file=sys.stderr)
        return 1
    table = read_table()
    found = compare(run, table)
    for test in found.unlisted:
        print(f"not listed: {test}\n{run.texts[test]}\n")
    for test in found.recovered:
        print(f"passes now, remove its line: {table[test]} {test}")
    print(", ".join(f"{number} {outcome}" for outcome, number in sorted(run.count().items())))
    if asked.write:
        asked.write.write_text(page(run, table))
    return 1 if found.unlisted or found.recovered else 0


def run_suite(suite: Path, python: Path, results: Path, files: list[str], folder: Path) -> None:
    """Runs their pytest, as they configure it, with a time limit for each test, and writes results to the
    file.
    """
    with serving(folder) as site:
        tokens = {user: token(site.data, user, names) for user, names in USERS.items()}
        constants = {
            "ENDPOINT_STAGING": site.url,
            "USER": "hubuser", "FULL_NAME": "hubuser", "TOKEN": tokens["hubuser"],
            "OTHER_USER": "otheruser", "OTHER_TOKEN": tokens["otheruser"],
            "ENTERPRISE_USER": "enterprise", "ENTERPRISE_ORG": "enterprise-org",
            "ENTERPRISE_TOKEN": tokens["enterprise"],
        }  # fmt: skip
        settings = {"constants": constants, "results": str(results), "version": VERSION}
        home = folder / "home"
        home.mkdir()
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HF_", "ADAPTRY_", "PYTEST_"))
        }
        command = [
            python, "-m", "pytest", "-p", "plugin", "-o", "addopts=", "-Werror::FutureWarning",
            "--strict-markers", "-p", "no:cacheprovider", "-m", "not production", f"--timeout={SECONDS}",
            "-q", "--tb=short", "--no-summary", f"--ignore={NOT_COLLECTED}", *files,
        ]  # fmt: skip
        environment = {
            "HOME": str(home),
            "HF_ENDPOINT": site.url,
            "HUGGINGFACE_CO_STAGING": "1",
            "PYTHONPATH": f"{suite}{os.pathsep}{Path(__file__).parent}",
            "ADAPTRY_OFFICIAL": json.dumps(settings),
        }
        subprocess.run(command, cwd=suite, env=kept | environment, check=False, stdin=subprocess.DEVNULL)


def token(data: Path, user: str, namespaces: str) -> str:
    holds = [word for namespace in namespaces.split(",") for word in ("--namespace", namespace)]
    command = [*ADAPTRY, "token", "create", user, "--role", "writer", *holds, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
