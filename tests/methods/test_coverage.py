"""Every method registered by the installed PEFT has an entry with a title, a description of merging, and a
corpus.
"""

from __future__ import annotations

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from adaptry.adapters.methods import METHODS
from adaptry.adapters.methods.method import Method

from .variants import VARIANTS

OF_PEFT = sorted(kind.value.lower() for kind in PEFT_TYPE_TO_CONFIG_MAPPING)


@pytest.mark.parametrize("name", OF_PEFT)
def test_every_method_of_peft_is_known_by_name(name: str) -> None:
    assert name in METHODS, f"write adapters/methods/{name}.py, and add it to METHODS (CONTRIBUTING.md)"


@pytest.mark.parametrize("name", OF_PEFT)
def test_the_corpus_has_every_method_of_peft(name: str) -> None:
    assert VARIANTS.get(name), f"add adapters of {name} to VARIANTS in tests/methods/variants.py"


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_method_without_a_merge_has_a_reason_and_a_remedy(method: Method) -> None:
    assert method.is_mergeable != bool(method.unmergeable_hint), (
        f"give {method.name} a change of a weight, or an unmergeable_hint with the reason and a remedy"
    )
