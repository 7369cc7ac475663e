"""What a job is asked to do, as a frozen value that parses itself and refuses what makes no sense, before
anybody runs it.

A payload names things of the registry and never a place on a machine: it is carried out elsewhere, by someone
who can read more than who asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adaptry.core.errors import Invalid


class JobTask(BaseModel):
    """One thing to do. `about` is its line of help.

    What of it makes no sense is refused when it is asked for, and not hours later by a runner: `check` adds
    to the fields what they mean together.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    about: ClassVar[str]

    @property
    def namespace(self) -> str:
        """Whose job it is: of who may write there. Empty where it changes what every namespace shares."""
        return ""

    @property
    def refs(self) -> tuple[str, ...]:
        """The versions it reads, as they were written."""
        return ()

    def is_negative(self, result: Mapping[str, Any]) -> bool:
        """Whether a job that was done has found that the answer is no, as a command's exit code 1 says.
        (`Any`: JSON.)
        """
        return False

    def check(self) -> None:
        """Raises `Invalid`, `ValidationError` where the fields together make no sense that any runner could
        find.
        """

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.check()
        except Invalid as error:
            raise ValueError(error.message) from None
        except ValidationError as error:
            raise ValueError(reason_of(error)) from None
        return self


def reason_of(error: ValidationError) -> str:
    """The first thing that is wrong, as a sentence."""
    said = error.errors(include_url=False, include_input=False)[0]["msg"]
    return str(said).removeprefix("Value error, ")
