"""X-LoRA (arXiv 2402.07148; PEFT `tuners/xlora`): a classifier that weighs LoRA adapters for each token.

The file has only the classifier. Its members are separate adapters, which the config names by their paths.
"""

from __future__ import annotations

from adaptry.adapters.config import AdapterConfig
from adaptry.adapters.methods.method import Method, ModuleSize, Shapes


def _layers(config: AdapterConfig) -> list[str]:
    """The indices of the classifier's linear layers, with a ReLU and possibly a dropout between them."""
    step = 2 if config.number("xlora_dropout_p", 0.2) == 0 else 3
    return [str(step * layer) for layer in range(config.rank("xlora_depth", 1))]


def _roles(config: AdapterConfig) -> tuple[str, ...]:
    # PEFT does not save a layer whose index is also that of a member, so the first may be missing.
    return tuple(
        f"classifier.layers.{layer}.{end}" for layer in _layers(config) for end in ("weight", "bias")
    )


def _module_size(shapes: Shapes, config: AdapterConfig) -> ModuleSize:
    """The size of an adapter without modules; also checks the shapes of the classifier's layers."""
    inputs, inner = config.rank("hidden_size", 1), config.rank("xlora_size", 2048)
    for layer in _layers(config):
        weight, bias = (shapes.get(f"classifier.layers.{layer}.{end}") for end in ("weight", "bias"))
        is_last = layer == _layers(config)[-1]
        if weight and (len(weight) != 2 or weight[1] != inputs or not (is_last or weight[0] == inner)):
            raise ValueError("a layer of the classifier does not have the width that the config declares")
        if weight and bias and bias != weight[:1]:
            raise ValueError("a layer of the classifier has a bias of a different size")
        inputs = inner
    return ModuleSize(0, 0, 0)


METHOD = Method(
    name="xlora",
    title="X-LoRA",
    key_patterns={},
    module_size=_module_size,
    shared={r"internal_xlora_classifier\.(?P<rest>layers\.\d+\.(?:weight|bias))": "classifier"},
    required_shared=_roles,
    names_modules=lambda config: False,
    traits=lambda config: ["members"] if config.fields.get("adapters") else [],
    unmergeable_hint=(
        "it weighs its members for every token separately: serve it unmerged, with PEFT's"
        " PeftModel.from_pretrained, or merge one of its members"
    ),
)
