"""Runs the real huggingface_hub client in a separate process, configured only by `HF_ENDPOINT` and
`HF_TOKEN`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from adaptry_api.testing import Server

PRELUDE = """
import json, os, sys
from pathlib import Path
from huggingface_hub import *
from huggingface_hub.errors import *
api = HfApi()
def said(error_class, call):
    try:
        call()
    except error_class as error:
        return str(error)
    raise AssertionError("nothing was raised")
"""


def run_client(
    server: Server, code: str, home: Path, token: str | None = "admin", **given: Any
) -> tuple[Any, str]:
    """Returns the code's variable `answer`, as JSON, and the client's output; `given` are variables for the
    code.

    (`Any`: JSON.)
    """
    settings = "".join(f"{name} = json.loads({json.dumps(value)!r})\n" for name, value in given.items())
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ADAPTRY_"))}
    environment |= {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(home / "hf"),
        "HF_TOKEN": server.admin if token == "admin" else token or "",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "" if token else "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", f"{PRELUDE}{settings}answer = None\n{code}\nprint(json.dumps(answer))"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr
