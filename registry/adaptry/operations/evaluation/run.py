"""Evaluates a version with lm-evaluation-harness in a separate process, and adds the results as evidence.

The version is fetched by its digest, and the results are added to that digest, even if an alias moves in the
meantime. lm-eval is run as this Python's module if it is installed there, else as the program on the PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from adaptry.core.errors import Invalid, MissingDependency, NotFound, Unavailable
from adaptry.core.processes.parent_watch import run_with_parent_watch
from adaptry.core.progress import Progress, no_progress
from adaptry.operations.evaluation.command import OUTPUT, EvaluatedModel, lm_eval_arguments
from adaptry.operations.evidence.addition import add_evidence
from adaptry.operations.transfer import pull
from adaptry.registry.evidence import EvidenceAddition
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.evaluation import EvaluationOptions
from adaptry.registry.records import VersionInfo
from adaptry.registry.state_warnings import require_usable

_KEPT_BACK = ("ADAPTRY_", "AWS_", "PG")
"""Prefixes of environment variables that lm-eval does not get, since they may have the registry's secrets."""
_THIS_MACHINE = "127.0.0.1"
_TAIL = 3000
"""Bytes of lm-eval's messages that an error shows."""


def lm_eval_program() -> list[str]:
    """The command that starts lm-eval. Raises `MissingDependency`, with the command that installs it."""
    if find_spec("lm_eval") is not None:
        return [sys.executable, "-m", "lm_eval"]
    if found := shutil.which("lm_eval"):
        return [found]
    raise MissingDependency(
        "lm-eval is neither installed here nor on the PATH; install it with: pip install 'adaptry[eval]'"
    )


def no_check() -> None:
    """The default: nothing is checked before results are added."""


def evaluated_model(
    version: VersionInfo, base: str | None, *, device: str = "cpu", engine: str | None = None,
    served_as: str | None = None,
) -> EvaluatedModel:  # fmt: skip
    """The version to evaluate, with its declared base unless another location of the base is given.

    Raises `Withdrawn`, and `NotFound` if the version names no base.
    """
    require_usable(version)
    place = base or version.base_name
    if place is None:
        raise NotFound(f"{version.label} names no base; pass the base's folder: --base DIR")
    return EvaluatedModel(version.revision_ref, place, device, engine, served_as)


def evaluate(
    registry: Registry,
    model: EvaluatedModel,
    options: EvaluationOptions,
    folder: Path,
    *,
    include_path: Path | None = None,
    messages: IO[bytes] | None = None,
    progress: Progress = no_progress,
    before_adding: Callable[[], None] = no_check,
) -> tuple[EvidenceAddition, ...]:
    """Fetches the version into the empty `folder`, evaluates it there, and adds the results.

    lm-eval's output goes to `messages`, or to the end of the error's message. If `before_adding` raises,
    nothing is added. lm-eval ends with this process, however that ends. Raises `MissingDependency`,
    `Invalid`, `Unavailable` if lm-eval fails, and the errors of `pull` and `add_evidence`.
    """
    arguments = lm_eval_arguments(model, options, str(include_path.absolute()) if include_path else None)
    program = lm_eval_program()
    if model.engine is None:
        pull(registry, model.ref, folder / str(model.ref), progress=progress)
    _run([*program, *arguments], folder, messages)
    before_adding()
    return add_evidence(registry, model.ref, [folder / OUTPUT], progress=progress)


def _run(words: Sequence[str], folder: Path, messages: IO[bytes] | None) -> None:
    log = folder / "lm_eval.log"
    try:
        with log.open("wb") as kept:
            code = run_with_parent_watch(words, folder, _environment(), messages or kept)
    except OSError as error:
        raise Unavailable(f"lm-eval could not be started: {error.strerror}") from error
    if code:
        output = "" if messages else log.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        raise Invalid(f"lm-eval failed (exit status {code}){': ' + output if output else ''}")


def _environment() -> dict[str, str]:
    """Our environment without secrets. Requests to this machine bypass the proxy."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(_KEPT_BACK)}
    direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    listed = ",".join(filter(None, (direct, _THIS_MACHINE)))
    return {**kept, "no_proxy": listed, "NO_PROXY": listed}
