"""A real vLLM whose cache has room for one adapter, and a bare name without an active version."""

from __future__ import annotations

from pathlib import Path

from adaptry.core.refs import Ref
from adaptry.operations.version_state import change_state
from adaptry.registry.records import StateChange

from . import models, vllm_server
from .conftest import Place
from .test_resolver import close_to, logprobs

pytestmark = vllm_server.PYTHON.marks


def test_a_cold_name_is_answered_while_the_cache_is_full_and_a_withdrawn_one_is_refused_with_the_reason(
    place: Place, env: dict[str, str], tmp_path: Path
) -> None:
    first, second = place.publish("acme/first", seed=21), place.publish("acme/second", seed=22)
    small = {
        **env,
        "ADAPTRY_CACHE": str(tmp_path / "cache"),
        "ADAPTRY_CACHE_SIZE": str(first.size + 1000),
        "ADAPTRY_HOME": str(tmp_path / "home"),
    }
    log = tmp_path / "vllm.log"
    with vllm_server.serving(vllm_server.PYTHON.python, place.base, small, log) as vllm:
        for name, version in (("acme/first", first), ("acme/second", second), ("acme/first", first)):
            assert logprobs(vllm.complete(name, models.PROMPT)) == close_to(place.trained(version))
            assert [one.partition("@")[0] for one in vllm.names()] == [name]

        leak = StateChange(state="revoked", reason="it leaks addresses")
        change_state(place.registry, Ref.parse("acme/second@1"), leak)
        answer = vllm.complete("acme/second", models.PROMPT)
        assert answer.status == 404
        assert "acme/second@1 is revoked: it leaks addresses (by root)" in answer.reason
