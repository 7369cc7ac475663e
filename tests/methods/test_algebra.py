"""The algebra of methods that add to a weight, on one linear layer: a merge is the base plus an update, and
can be undone.

The reference is PEFT's live, unmerged adapter; inputs, weights and their signs are drawn by hypothesis.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.adapters.adapter import Adapter
from adaptry.adapters.methods import METHODS
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.merge import MergeSource, merge
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

from .variants import VARIANTS

ADDITIVE = [
    name
    for name, method in METHODS.items()
    if method.weight
    and not method.needs_base
    and name in VARIANTS.keys() - {"bone"}  # PEFT no longer makes these
]
NEAR = 2e-5
"""A few roundings of numbers of size 1 in float32, and what an FFT leaves."""
_names = itertools.count()


class OneLinear(torch.nn.Module):
    """The whole model: 32 inputs, 48 outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = torch.nn.Linear(32, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x)  # type: ignore[no-any-return]  # torch: modules are called untyped


@dataclass(frozen=True)
class Layer:
    """A base of one layer, an adapter for it, and PEFT's live model of both. (`Any`: PEFT is not typed.)"""

    folder: Path
    adapter: Adapter
    live: Any

    def merged(self, weight: float, base: Path | None = None) -> Path:
        """A new base with the adapter merged with this `weight`."""
        base, target = base or self.folder / "base", self.folder / f"merged-{next(_names)}"
        recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="adapter", weight=weight),))
        merge(
            recipe,
            open_checkpoint(base),
            [MergeSource(WeightedAdapter(self.adapter, weight, "adapter"))],
            target,
        )
        return target


@pytest.fixture(scope="module", params=ADDITIVE)
def layer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Layer:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = OneLinear()
    (folder / "base").mkdir()
    save_file(model.state_dict(), folder / "base" / "model.safetensors")
    (folder / "base" / "config.json").write_text(json.dumps({"model_type": "one-linear"}))
    kind = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(request.param.upper())]
    try:
        live = peft.get_peft_model(model, kind(target_modules=["lin"], **VARIANTS[request.param][0].fields))
    except ImportError as error:
        pytest.skip(str(error))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in live.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape) * 0.1
    live.save_pretrained(folder / "adapter")
    written = (
        folder / "adapter" / "adapter_config.json"
    )  # it names this test's module as the library to import, which is refused
    written.write_text(json.dumps({**json.loads(written.read_text()), "auto_mapping": None}))
    return Layer(folder, open_dir(folder / "adapter"), live.eval())


def weight_of(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["lin.weight"]


def outputs_of(folder: Path, x: torch.Tensor) -> torch.Tensor:
    """The output of the layer stored in `folder` for `x`."""
    model = OneLinear()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    with torch.no_grad():
        return model(x)  # type: ignore[no-any-return]  # torch: modules are called untyped


few = settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
weights = st.floats(-2, 2, width=16).filter(lambda weight: abs(weight) > 0.01)


@few
@given(seed=st.integers(0, 2**31))
def test_a_merged_layer_answers_any_input_as_the_base_with_the_live_adapter(layer: Layer, seed: int) -> None:
    x = torch.randn(5, 32, generator=torch.Generator().manual_seed(seed))

    with torch.no_grad():
        wanted = layer.live(x)

    assert torch.allclose(outputs_of(layer.merged(1), x), wanted, atol=NEAR * float(wanted.abs().max()))


@few
@given(weight=weights)
def test_a_weight_scales_the_update_and_nothing_else(layer: Layer, weight: float) -> None:
    base = weight_of(layer.folder / "base")
    update = weight_of(layer.merged(1)) - base

    found = weight_of(layer.merged(weight))

    assert torch.allclose(found, base + weight * update, atol=NEAR * float(update.abs().max() + 1))


@few
@given(weight=weights)
def test_a_merge_can_be_subtracted_again(layer: Layer, weight: float) -> None:
    base = weight_of(layer.folder / "base")
    merged = layer.merged(weight)

    found = weight_of(layer.merged(-weight, merged))

    assert not torch.equal(weight_of(merged), base)
    assert torch.allclose(found, base, atol=NEAR * float(weight_of(merged).abs().max()))
