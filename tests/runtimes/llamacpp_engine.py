"""llama.cpp: its own converter, and its server with what that writes, in a process for each adapter.

`llamacpp_engine.py CONVERTER BASE GGUF PROMPTS ADAPTER…` (prompts: JSON, lists of token ids) prints for the
base and each adapter, a line each, the log-probability of every possible next token for each prompt, or the
error with which the converter or the server ends.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.runtimes.llamacpp_packages import use_packages_of

use_packages_of(sys.argv[1])

from tests.exporting.llamacpp import all_log_probabilities  # noqa: E402


def converted(converter: str, base: str, adapter: str, file: Path) -> None:
    sys.argv = [converter, adapter, "--base", base, "--outfile", str(file), "--outtype", "f32"]
    runpy.run_path(converter, run_name="__main__")


def answered(gguf: str, prompts: list[list[int]], file: Path | None) -> list[list[float]]:
    return [odds.tolist() for odds in all_log_probabilities(Path(gguf), file, prompts)]


def apart(converter: str, base: str, gguf: str, prompts: list[list[int]], adapter: str) -> dict[str, Any]:
    """The answer of a child process, which either of the two may crash. (`Any`: JSON.)"""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        child = os.fork()
        if not child:
            status = 1
            try:
                log = os.open(place / "log", os.O_CREAT | os.O_WRONLY)
                os.dup2(log, 1)
                os.dup2(log, 2)
                converted(converter, base, adapter, place / "adapter.gguf")
                (place / "converted").touch()
                found = answered(gguf, prompts, place / "adapter.gguf")
                (place / "odds").write_text(json.dumps(found))
                status = 0
            except BaseException as error:  # noqa: BLE001  whatever it ends with is the answer
                os.write(2, f"\n{type(error).__name__}: {error}".encode())
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        if (place / "odds").exists():
            return {"odds": json.loads((place / "odds").read_text())}
        when = "load" if (place / "converted").exists() else "convert"
        return {"refused": (place / "log").read_text(errors="replace")[-600:], "when": when}


def main(converter: str, base: str, gguf: str, prompts: str, *adapters: str) -> None:
    sys.path.insert(0, str(Path(converter).parent))
    runpy.run_path(converter)  # its imports take seconds, and children have them from here
    asked = json.loads(prompts)
    with_base = os.fork()
    if not with_base:  # the server's threads would not be in a child's child
        print(json.dumps({"odds": answered(gguf, asked, None)}), flush=True)
        os._exit(0)
    os.waitpid(with_base, 0)
    for adapter in adapters:
        print(json.dumps(apart(converter, base, gguf, asked, adapter)), flush=True)


main(*sys.argv[1:])
