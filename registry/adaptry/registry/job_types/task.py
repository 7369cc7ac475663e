"""The task of a job, as a frozen value that parses itself, so invalid fields are refused on submission.

A task contains names in the registry and never paths on a machine, since a runner executes it elsewhere, and
may be able to read more files than the submitter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adaptry.core.errors import Invalid


class JobTask(BaseModel):
    """A task. `summary` is its line of help.

    Invalid tasks are refused at submission, and not hours later by a runner: `check` validates fields
    together.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")
    summary: ClassVar[str]

    @property
    def namespace(self) -> str:
        """The namespace that owns the job, whose writers may submit it; empty if it changes shared data."""
        return ""

    @property
    def refs(self) -> tuple[str, ...]:
        """The versions that it reads, as the user wrote them."""
        return ()

    def is_negative(self, result: Mapping[str, Any]) -> bool:
        """Whether a finished job has a negative answer, like a command's exit code 1. (`Any`: JSON.)"""
        return False

    def check(self) -> None:
        """Raises `Invalid` or `ValidationError` if the combination of fields is invalid for every runner."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        try:
            self.check()
        except Invalid as error:
            raise ValueError(error.message) from None
        except ValidationError as error:
            raise ValueError(reason_of(error)) from None
        return self


def reason_of(error: ValidationError) -> str:
    """The first error, as a sentence."""
    message = error.errors(include_url=False, include_input=False)[0]["msg"]
    return str(message).removeprefix("Value error, ")
