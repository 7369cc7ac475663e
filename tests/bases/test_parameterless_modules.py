"""The table of modules without parameters matches the installed transformers."""

from __future__ import annotations

import re

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from adaptry.bases.parameterless_modules import PARAMETERLESS  # noqa: E402  (needs torch)

_FEW = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers")
_PARTS = ("text_config", "vision_config")


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(PARAMETERLESS))
def test_the_modules_without_parameters_are_listed(model_type: str) -> None:
    config = transformers.AutoConfig.for_model(model_type)
    for part in filter(None, (config, *(getattr(config, name, None) for name in _PARTS))):
        for field in _FEW:
            if hasattr(part, field):
                setattr(part, field, 2)
        if getattr(part, "layer_types", None):
            part.layer_types = part.layer_types[:2]
    with torch.device("meta"):
        model = transformers.AutoModel.from_config(config)
    found = {
        re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
        for name, module in model.named_modules()
        if name and not list(module.parameters()) and not isinstance(module, torch.nn.ModuleList)
    }
    lacking = set() if hasattr(model, "pooler") else {"pooler.activation"}
    assert found == set(PARAMETERLESS[model_type]) - lacking
