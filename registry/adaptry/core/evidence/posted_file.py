"""A file that lm-eval posts: its values, and which version it claims to have measured.

lm-eval states a revision (`peft_sha`) only of an adapter that it loaded from the Hub. For a local folder and
for an engine it states a name, which states the version if it ends with a ref by digest, as in
`./acme/tone@sha256:9f…`. Anything else is not guessed. Posted files are untrusted and parsed in a child
process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from adaptry.core.digest import Digest
from adaptry.core.errors import Invalid, InvalidPath, InvalidRef, Unavailable
from adaptry.core.evidence import lm_eval
from adaptry.core.evidence.parsed_results import mapping, read_json, text
from adaptry.core.evidence.values import EvidenceFile
from adaptry.core.processes.bounded import ProcessFailed, ProcessLimits, ProcessTimeout
from adaptry.core.processes.worker_pool import run_in_worker
from adaptry.core.refs import AdapterName

MAX_RESULTS = 4 << 20
"""Bytes of a posted results file."""
MAX_SAMPLES = 16 << 20
"""Bytes of a posted samples file."""
MAX_PATH = 1024
_LIMITS = ProcessLimits(10.0, 2 << 30, answer=4 << 20)
_REFUSED, _ANSWERED = b"!", b"="
_BY_DIGEST = re.compile(
    r"(?:.*[/\\])?(?P<name>[^/\\@]+[/\\][^/\\@]+)@(?:sha256[:-])?(?P<hex>[0-9a-f]{12,64})[/\\]*"
)
_HEX = re.compile(r"[0-9a-f]{12,64}")
_NAME = re.compile(r"[^/\\@]+/[^/\\@]+")


class ParsedPost(BaseModel):
    """The contents of a posted file. `run` is the time in its name, which all files of a run have in common.

    A results file has the values in `file`, the model's name as written, and the adapter and revision (hex
    digits of a digest) that it states. A samples file has its `task`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    run: str
    file: EvidenceFile | None = None
    model: str | None = None
    adapter: AdapterName | None = None
    revision: str | None = None
    task: str | None = None

    @property
    def is_results(self) -> bool:
        return self.task is None


def check_posted_path(path: str) -> str:
    """The path of a posted file. It is shown, but never opened: lm-eval derives it from the model's name.

    Raises `InvalidPath`.
    """
    shown = path.removeprefix("./").strip("/")
    if not 0 < len(shown) <= MAX_PATH or not shown.isprintable() or ".." in shown.split("/"):
        raise InvalidPath(f"not a path of a posted file: {path[:100]!a}")
    return shown


def read_posted(name: str, data: bytes) -> ParsedPost:
    """Reads a file by its name, `results_….json` or `samples_….jsonl`. Raises `Invalid`, `Unavailable`."""
    samples, limit = lm_eval.samples_of(name), MAX_RESULTS
    if samples is not None:
        limit = MAX_SAMPLES
    elif lm_eval.results_time(name) is None:
        raise Invalid(
            f"{name[:200]!a} is not a file of lm-eval; only results_….json and samples_….jsonl are accepted"
        )
    if len(data) > limit:
        raise Invalid(
            f"{name} has {len(data):,} bytes; at most {limit >> 20} MiB are posted. Add it to the"
            f" version itself:"
            " adaptry evidence add REF FILE"
        )
    try:
        found = run_in_worker("adaptry.core.evidence.posted_file", data, _LIMITS, [name])
    except ProcessTimeout:
        raise Invalid(f"{name} takes more than {_LIMITS.seconds:.0f} s to read") from None
    except ProcessFailed as error:
        raise Unavailable(f"{name} could not be read: {error}; try again") from error
    if found.startswith(_REFUSED):
        raise Invalid(found[1:].decode())
    return ParsedPost.model_validate_json(found[1:])


def answer(data: bytes, name: str) -> bytes:
    """Runs in the child: the parsed file as JSON, or the message of an `Invalid`."""
    try:
        samples = lm_eval.samples_of(name)
        found = _read_samples(data, name, *samples) if samples else _read_results(data, name)
    except Invalid as error:
        return _REFUSED + error.message.encode("utf-8", "replace")
    return _ANSWERED + found.model_dump_json().encode()


def stated_version(model: str | None, revision: str | None) -> tuple[AdapterName | None, str | None]:
    """The adapter and the revision that a file states by its model's name and the model's revision."""
    if model is None:
        return None, None
    by_digest = _BY_DIGEST.fullmatch(model)
    written = by_digest["name"].replace("\\", "/") if by_digest else model if _NAME.fullmatch(model) else None
    try:
        name = AdapterName.parse(written) if written else None
    except InvalidRef:
        return None, None
    stated = by_digest["hex"] if by_digest else revision or ""
    return name, stated if _HEX.fullmatch(stated) else None


def _read_results(data: bytes, name: str) -> ParsedPost:
    document = read_json(data, name)
    if not lm_eval.is_results(document):
        raise Invalid(f"{name} is not a results file of lm-eval")
    read = lm_eval.read_results(document, name)
    model = _model_of(document)
    adapter, revision = stated_version(model, read.revision or None)
    return ParsedPost(
        run=lm_eval.results_time(name) or "",
        file=read.evidence_file(Digest.of(data)),
        model=model,
        adapter=adapter,
        revision=revision,
    )


def _read_samples(data: bytes, name: str, task: str, time: str) -> ParsedPost:
    documents = sum(1 for _ in lm_eval.read_samples(data.split(b"\n"), name))
    if not documents:
        raise Invalid(f"{name} contains no documents")
    return ParsedPost(run=time, task=task)


def _model_of(document: Mapping[str, Any]) -> str | None:
    """(`Any`: JSON.)"""
    arguments = mapping(mapping(document.get("config")).get("model_args"))
    return text(document.get("model_name")) or text(arguments.get("peft")) or text(arguments.get("model"))
