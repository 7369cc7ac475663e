"""A probe from end to end: an engine asked, the reference asked, and both compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptry.core.errors import CheckFailed
from adaptry.integrations.engine_test.client import EngineTarget, QueryLogprobs
from adaptry.integrations.engine_test.reference import compute_reference
from adaptry.integrations.engine_test.verdict import EngineTestResult, PromptLogprobs, compute_verdict


def run_engine_test(
    ask: QueryLogprobs, target: EngineTarget, base: Path, adapter: Path, prompts: Sequence[str]
) -> EngineTestResult:
    """Whether `whom` answers as the adapter in `adapter` was trained to on the model in `base`.

    Raises what asking and `next_tokens` raise, and `CheckFailed` where the engine names tokens that the base does not have.
    """
    told = [
        (ask(target, prompt, False), ask(target, prompt, True)) for prompt in prompts
    ]  # before anything is loaded
    answers = []
    for (engine_base, engine), here in zip(told, compute_reference(base, adapter, prompts), strict=True):
        try:
            answers.append(
                PromptLogprobs(
                    engine_base, engine, here.base([*engine_base, *engine]), here.trained([*engine])
                )
            )
        except IndexError:
            raise CheckFailed(
                f"the engine names tokens that {base} does not have: it serves another model"
            ) from None
    return compute_verdict(answers)
