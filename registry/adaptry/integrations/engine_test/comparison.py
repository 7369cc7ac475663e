"""Runs an engine test end to end: queries the engine and the reference, and compares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptry.core.errors import CheckFailed
from adaptry.integrations.engine_test.client import EngineTarget, QueryLogprobs
from adaptry.integrations.engine_test.reference import compute_reference
from adaptry.integrations.engine_test.verdict import EngineTestResult, PromptLogprobs, compute_verdict


def run_engine_test(
    query: QueryLogprobs, target: EngineTarget, base: Path, adapter: Path, prompts: Sequence[str]
) -> EngineTestResult:
    """Tests whether `target` serves the adapter in `adapter` as it was trained on the model in `base`.

    Raises the errors of the query and of `compute_reference`, and `CheckFailed` if the engine returns tokens
    that the base lacks.
    """
    responses = [
        (query(target, prompt, False), query(target, prompt, True)) for prompt in prompts
    ]  # before anything is loaded
    answers = []
    for (engine_base, engine), here in zip(responses, compute_reference(base, adapter, prompts), strict=True):
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
