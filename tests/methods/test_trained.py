"""The number of trained parameters of a file equals PEFT's count, whatever else the file has."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft

from adaptry import open_dir
from adaptry_cli.capabilities import trained_parameters

from .corpus import Case, make
from .families import FAMILIES
from .variants import VARIANTS

HOLDING_MORE = [
    "adamss", "delora", "frod", "glora", "pvera", "randlora", "shira", "supertuning", "tinylora", "unilora",
    "vera",
]  # fmt: skip


@pytest.mark.parametrize("method", [*HOLDING_MORE, "lora", "loha"])
def test_the_number_of_trained_elements_equals_pefts(method: str, tmp_path: Path) -> None:
    try:
        made = make(Case(method, VARIANTS[method][0], "llama", "fp32"), tmp_path)
    except ImportError as error:
        pytest.skip(str(error))
    live = peft.PeftModel.from_pretrained(FAMILIES["llama"].load(made.base), made.adapter, is_trainable=True)
    counted, _ = live.get_nb_trainable_parameters()

    adapter = open_dir(made.adapter)

    assert trained_parameters(adapter) == counted
    assert (counted < adapter.spec.parameters) == (method in HOLDING_MORE)


def test_an_embedding_that_is_saved_beside_its_update_was_not_trained(tmp_path: Path) -> None:
    variant = next(each for each in VARIANTS["lora"] if each.name == "embedding")
    adapter = open_dir(make(Case("lora", variant, "llama", "fp32"), tmp_path).adapter)

    assert trained_parameters(adapter) == 4 * (96 + 32)
    assert adapter.spec.parameters == 4 * (96 + 32) + 96 * 32
