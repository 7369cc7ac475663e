"""The names under which vLLM's plugin loads adapters, which routers see."""

from __future__ import annotations

import pytest

from adaptry.core.digest import Digest
from adaptry.core.stack_ref import StackRef
from adaptry.integrations.serving.vllm.names import loaded_name, numbered_name, parse_model_name

DIGEST = Digest.of(b"a version")
EXACT = f"acme/tone@{DIGEST.brief}"


def loaded_as(model: str) -> str:
    return loaded_name(model, parse_model_name(model) or StackRef(()), [DIGEST])


@pytest.mark.parametrize("model", [EXACT, f"acme/tone@sha256:{DIGEST.hex}"])
def test_a_version_that_is_requested_by_its_digest_is_loaded_under_exactly_that_name(model: str) -> None:
    assert numbered_name(loaded_as(model), 1) == model


@pytest.mark.parametrize("model", ["acme/tone", "acme/tone@3", "acme/tone@prod"])
def test_other_names_are_loaded_with_the_digest_behind_them(model: str) -> None:
    assert loaded_as(model) == f"{model}@{DIGEST.brief}"


@pytest.mark.parametrize("model", [EXACT, "acme/tone@prod"])
def test_a_name_that_is_loaded_again_has_a_number_and_means_the_same(model: str) -> None:
    name = loaded_as(model)
    again = numbered_name(name, 9)
    assert again == f"{name}~9"
    assert str(parse_model_name(again)) == EXACT
    assert loaded_as(again) == name
