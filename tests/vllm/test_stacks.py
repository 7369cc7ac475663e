"""Several adapters in one request to a real vLLM: its output equals PEFT's for the weighted sum, until one of
them is recalled.
"""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.operations.recall_status import recall_status
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs, move, until
from .vllm_server import Vllm

pytestmark = vllm_server.PYTHON.marks


def test_a_stack_answers_as_pefts_weighted_sum_until_a_part_is_recalled(place: Place, vllm: Vllm) -> None:
    tone, facts = place.publish("acme/stack-tone", seed=31), place.publish("acme/stack-facts", seed=32)
    for version in (tone, facts):
        move(place, str(version.name), version)
    made = [place.made[version.digest.brief] for version in (tone, facts)]
    both = "acme/stack-tone@prod+acme/stack-facts@prod=0.5"

    answer = vllm.complete(both, models.PROMPT)

    assert logprobs(answer) == close_to(models.said_together(place.base, made, [1.0, 0.5]))
    assert answer.model == f"acme/stack-tone@{tone.digest.brief}+acme/stack-facts@{facts.digest.brief}=0.5"
    swapped = vllm.complete("acme/stack-facts@prod=0.5+acme/stack-tone@prod", models.PROMPT)
    assert logprobs(swapped) == close_to(logprobs(answer))
    halved = vllm.complete("acme/stack-tone@prod=0.5", models.PROMPT)
    assert logprobs(halved) == close_to(models.said_together(place.base, made[:1], [0.5]))

    newer = place.publish("acme/stack-facts", seed=33)
    move(place, "acme/stack-facts", newer)
    until(lambda: newer.digest.brief in vllm.complete(both, models.PROMPT).model)
    made[1] = place.made[newer.digest.brief]
    moved = vllm.complete(both, models.PROMPT)
    assert logprobs(moved) == close_to(models.said_together(place.base, made, [1.0, 0.5]))

    ref = Ref.of_revision(newer.name, newer.digest)
    change_state(place.registry, ref, StateChange(state="revoked", reason="it leaks addresses"))
    until(lambda: vllm.complete(both, models.PROMPT).status == 403)
    assert "it leaks addresses" in vllm.complete(both, models.PROMPT).reason
    until(lambda: recall_status(place.registry, ref).is_complete)
    assert {one.outcome for one in recall_status(place.registry, ref).lines} == {"dropped"}  # of each name
    assert moved.model not in vllm.names()
    assert vllm.complete("acme/stack-tone@prod", models.PROMPT).status == 200
