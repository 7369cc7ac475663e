"""The names of the modules inside PEFT's layers are those of the installed PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest

peft = pytest.importorskip("peft")
torch = pytest.importorskip("torch")

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402  (after libraries that may be missing)
from tests.methods.variants import VARIANTS  # noqa: E402

from adaptry.checks.inner_modules import INNER  # noqa: E402


class Layers(torch.nn.Module):  # type: ignore[misc]  # torch is imported by importorskip
    """A layer of each class that PEFT adapts."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(32, 32)
        self.embedding = torch.nn.Embedding(32, 32)
        self.convolution = torch.nn.Conv2d(32, 32, 1)
        self.norm = torch.nn.LayerNorm(32)
        self.config = {"tie_word_embeddings": False}

    def forward(self, rows: Any) -> Any:
        return self.linear(self.embedding(rows))


def names_inside(method: str) -> Iterator[str]:
    """The names inside a layer, over all layers and variants that PEFT adapts by the method."""
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType("MISS" if method == "bone" else method.upper())]
    for variant in VARIANTS[method]:
        fields = {
            key: value
            for key, value in variant.fields.items()
            if key not in ("modules_to_save", "target_parameters", "trainable_token_indices")
        }
        for layer in ("linear", "embedding", "convolution", "norm"):
            try:
                adapted = peft.get_peft_model(Layers(), kind(target_modules=[layer], **fields))
            except (ValueError, TypeError, NotImplementedError, ImportError, RuntimeError, KeyError):
                continue  # PEFT's method does not support this layer
            around = f"base_model.model.{layer}."
            yield from (
                name.removeprefix(around) for name, _ in adapted.named_modules() if name.startswith(around)
            )


@pytest.mark.slow
@pytest.mark.parametrize("method", INNER)
def test_the_names_inside_a_layer_are_those_of_peft(method: str) -> None:
    with warnings.catch_warnings(action="ignore"):
        found = set(names_inside(method))
    # Modules inside a listed one, such as an item of a `ModuleList`, end with names that no config has.
    ends = {name for name in found if name.count(".") < 2 and name != "base_layer"}
    variants = {"lora_magnitude_vector.default", "oft_embedding_R.default"}  # only few configs have these
    general = {"gralora_A_general.default", "gralora_B_general.default"}
    assert ends - variants - general == set(INNER[method])
