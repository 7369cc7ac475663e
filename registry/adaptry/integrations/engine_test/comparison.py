"""A probe from end to end: an engine asked, the reference asked, and both compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptry.core.errors import Refused
from adaptry.integrations.engine_test.client import Ask, Asked
from adaptry.integrations.engine_test.reference import next_tokens
from adaptry.integrations.engine_test.verdict import Answered, Probe, judge


def probe(ask: Ask, whom: Asked, base: Path, adapter: Path, prompts: Sequence[str]) -> Probe:
    """Whether `whom` answers as the adapter in `adapter` was trained to on the model in `base`.

    Raises what asking and `next_tokens` raise, and `Refused` where the engine names tokens that the base does not have.
    """
    told = [
        (ask(whom, prompt, False), ask(whom, prompt, True)) for prompt in prompts
    ]  # before anything is loaded
    answers = []
    for (engine_base, engine), here in zip(told, next_tokens(base, adapter, prompts), strict=True):
        try:
            answers.append(
                Answered(engine_base, engine, here.base([*engine_base, *engine]), here.trained([*engine]))
            )
        except IndexError:
            raise Refused(
                f"the engine names tokens that {base} does not have: it serves another model"
            ) from None
    return judge(answers)
