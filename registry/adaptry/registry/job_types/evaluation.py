"""What lm-evaluation-harness evaluates, and how: the options that a job and a command have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:|-]{1,200}$")]


class EvaluationOptions(BaseModel):
    """The lm-eval tasks to evaluate, how many documents of each (the first `limit`, by default all), and the
    other options.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[TaskName, ...] = Field(min_length=1, max_length=64)
    limit: int | None = Field(default=None, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0, le=1000)
    batch_size: int = Field(default=1, ge=1, le=4096)
    apply_chat_template: bool = False
