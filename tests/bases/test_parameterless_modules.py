"""The table of modules without parameters is that of the installed transformers."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from adaptry.bases.parameterless_modules import PARAMETERLESS  # noqa: E402  (needs torch)

_FEW = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(PARAMETERLESS))
def test_the_modules_without_parameters_are_listed(model_type: str) -> None:
    config = transformers.AutoConfig.for_model(model_type)
    for field in _FEW:
        if hasattr(config, field):
            setattr(config, field, 2)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:2]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    found = {
        re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
        for name, module in model.named_modules()
        if name and not list(module.parameters()) and not isinstance(module, torch.nn.ModuleList)
    }
    optional = {"pooler.activation"}  # not in every model with a head
    assert found - optional == set(PARAMETERLESS[model_type])
