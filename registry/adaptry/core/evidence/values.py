"""Evidence to add: the numbers in one results file, and how they were measured.

A file is added unmodified and stored; its numbers become `EvidenceValue`s. What a file does not state stays
None and is never guessed.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from adaptry.core.digest import Digest

Direction = Literal["higher", "lower", "unknown"]
"""Which values of a metric are better."""

EvidenceFormat = Literal[
    "lm-eval", "eval-results", "model-index", "trainer-state", "inspect", "mlflow", "wandb-summary"
]
"""The kinds of files that evidence is read from."""

MAX_VALUES = 1000
"""Values of one file."""
MAX_TEXT = 200
_MAX_SAFE_INTEGER = (1 << 53) - 1  # the largest integer that every reader of JSON keeps exact


def _require_printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("it has control characters, or a space at its beginning or end")
    return text


Label = Annotated[str, Field(min_length=1, max_length=MAX_TEXT), AfterValidator(_require_printable)]
"""A short text on one line, such as the name of a task or metric."""


class EvidenceValue(BaseModel):
    """One measured number. `step` is the training step; the number was computed from `samples`, the file with
    the value of each document. `settings` describes how the task was run, such as `5-shot`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    metric: Label
    value: float = Field(allow_inf_nan=False)
    task: Label | None = None
    task_version: Label | None = None
    task_hash: Label | None = None
    settings: Label | None = None
    filter: Label | None = None
    stderr: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    n: int | None = Field(default=None, ge=0, le=_MAX_SAFE_INTEGER)
    direction: Direction = "unknown"
    dataset: Label | None = None
    step: int | None = Field(default=None, ge=0, le=_MAX_SAFE_INTEGER)
    samples: Digest | None = None


class EvidenceFile(BaseModel):
    """A results file: its digest, its format, the program that wrote it, and its values.

    `chat_template` is the hash that the program states of the template that it used.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    digest: Digest
    format: EvidenceFormat
    harness: Label | None = None
    harness_version: Label | None = None
    harness_commit: Label | None = None
    chat_template: Label | None = None
    values: tuple[EvidenceValue, ...] = Field(min_length=1, max_length=MAX_VALUES)

    @property
    def stored_files(self) -> frozenset[Digest]:
        """The files that must be stored with the values."""
        samples = {value.samples for value in self.values if value.samples is not None}
        return frozenset(samples | {self.digest})
