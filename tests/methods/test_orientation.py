"""Linear, Conv1D and convolutional layers of a model of unknown type, with either value of `fan_in_fan_out`:
merged as PEFT merges them, which looks only at the class, or refused, or merged with a note.
"""

from __future__ import annotations

import json
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers.pytorch_utils import Conv1D

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.extraction.extracted_adapter import build_extracted_adapter
from adaptry.compute.extraction.plan import plan_extraction
from adaptry.compute.extraction.recipe import ExtractRecipe
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.merging.merge import MergeSource, plan_recipe
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput

from .corpus import _REFUSALS as REFUSALS
from .families import Family
from .peft_comparison import ask_peft, ask_us, verdict
from .variants import VARIANTS, Variant

pytestmark = pytest.mark.heavy

FLAG = "fan_in_fan_out"
SIZES = (16, 24, 32, 48)
CLASSES = ("linear", "conv1d", "conv2d")


@dataclass(frozen=True)
class Layer:
    """`kind` is one of `CLASSES`. Linear layers may have no bias; transformers' Conv1D always has one."""

    name: str
    kind: str
    fan_in: int
    fan_out: int
    has_bias: bool = True

    def build(self) -> torch.nn.Module:
        match self.kind:
            case "linear":
                return torch.nn.Linear(self.fan_in, self.fan_out, bias=self.has_bias)
            case "conv1d":
                layer: torch.nn.Module = Conv1D(self.fan_out, self.fan_in)
                return layer
        return torch.nn.Conv2d(self.fan_in, self.fan_out, 3)


class Unheard(torch.nn.Module):
    """Layers one level down, in a model of an unknown type; it is never run."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        super().__init__()
        self.body = torch.nn.ModuleDict({layer.name: layer.build() for layer in layers})
        self._layers = layers

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "unheard"}))


def family_of(layers: Sequence[Layer]) -> Family:
    class Loaded(Unheard):
        @classmethod
        def from_pretrained(cls, folder: Path, **_: Any) -> Self:
            """(`Any`: the arguments of transformers' own method.)"""
            model = cls(layers)
            model.load_state_dict(load_file(folder / "model.safetensors"))
            return model

    return Family(lambda: Loaded(layers), Loaded, None, [layer.name for layer in layers])


def models(source: random.Random) -> Iterator[tuple[str, list[Layer]]]:
    """A description, the layers that the adapter changes, and others that it may leave unchanged."""
    names = source.sample(["alef", "bet", "gimel", "dalet", "he", "vav", "zayin"], 4)
    side, *others = source.sample(SIZES, 3)
    for kind in CLASSES:
        wide = Layer(names[0], kind, side, others[0], kind != "linear" or source.random() < 0.5)
        square = Layer(names[1], kind, side, side)
        yield f"{kind}, wide and square", [wide, square]
        yield f"{kind}, square", [square]
    linear = Layer(names[2], "linear", others[0], others[1])
    yield "a square conv1d before a linear layer", [Layer(names[1], "conv1d", side, side), linear]
    yield "a linear layer before a square conv1d", [linear, Layer(names[1], "conv1d", side, side)]
    yield (
        "a wide conv1d and a square linear layer",
        [
            Layer(names[0], "conv1d", side, others[0]),
            Layer(names[1], "linear", side, side),
        ],
    )


def variants() -> Iterator[tuple[str, Variant]]:
    """The first variant of each method that PEFT merges, and a DoRA."""
    for method, (first, *others) in VARIANTS.items():
        if first.targets == "linear" and method not in ("bone", "lily", "poly"):
            yield method, first
            yield from ((method, variant) for variant in others if variant.name == "dora")


def save_adapter(family: Family, base: Path, method: str, variant: Variant, folder: Path) -> bool:
    """Saves the adapter; returns False if PEFT cannot make it."""
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.upper())]
    fields: Mapping[str, Any] = {**variant.fields, "target_modules": family.linear}
    with warnings.catch_warnings(action="ignore"):
        torch.manual_seed(1)
        try:
            live = peft.get_peft_model(family.load(base), config(**fields))
        except REFUSALS:
            return False
        with torch.no_grad():
            for parameter in live.parameters():
                if parameter.requires_grad and parameter.is_floating_point():
                    parameter += torch.randn(parameter.shape) * 0.1
        live.save_pretrained(folder)
    path = folder / "adapter_config.json"
    # PEFT writes the class's module there; it must not be imported.
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": None}))
    return True


def notes_of(base: Path, adapter: Path) -> str:
    """The notes of a merge of the adapter."""
    recipe = MergeRecipe(base=str(base), inputs=(RecipeInput(source=str(adapter)),))
    plan = plan_recipe(
        recipe, open_checkpoint(base), [MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "it"))]
    )
    return " ".join(plan.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "variant"), list(variants()), ids=lambda each: getattr(each, "name", each)
)
def test_the_class_of_a_layer_decides_its_orientation_whatever_the_flag_says(
    method: str, variant: Variant, tmp_path: Path
) -> None:
    wrong, merged = [], 0
    for number, (description, layers) in enumerate(models(random.Random(f"{method} {variant.name}"))):
        family = family_of(layers)
        base = family.save(tmp_path / f"base-{number}", torch.float32)
        adapter = tmp_path / f"adapter-{number}"
        if not save_adapter(family, base, method, variant, adapter):
            continue
        config = json.loads((adapter / "adapter_config.json").read_text())
        tried = [{**config, FLAG: flag} for flag in (True, False)] if FLAG in config else [config]
        for turn, each in enumerate(tried):
            (adapter / "adapter_config.json").write_text(json.dumps(each))
            theirs = ask_peft(family, base, adapter)
            ours = ask_us(base, adapter, tmp_path / f"merged-{number}-{turn}")
            if theirs.is_random:
                continue
            answer = verdict(family, theirs, ours)
            if answer is not None and "no file shows" not in (notes_of(base, adapter) if ours.folder else ""):
                wrong.append(f"{description}, {FLAG} {each.get(FLAG)}: {answer}")
            merged += ours.folder is not None and not theirs.error
    assert wrong == []
    assert merged


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set:UserWarning")
@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_an_extracted_lora_gives_the_fine_tune_in_peft_whatever_the_class(kind: str, tmp_path: Path) -> None:
    layers = [Layer("alef", kind, 24, 32), Layer("bet", kind, 24, 24), Layer("gimel", kind, 32, 24)]
    family = family_of(layers)
    base, fine = family.save(tmp_path / "base", torch.float32), tmp_path / "fine"
    tuned = family.load(base)
    with torch.no_grad():
        for parameter in tuned.parameters():
            parameter += torch.randn(parameter.shape) * 0.1
    tuned.save_pretrained(fine)
    plan = plan_extraction(ExtractRecipe(rank=32), open_checkpoint(base), open_checkpoint(fine))
    write_adapter(build_extracted_adapter(plan, str(base)), tmp_path / "lora")

    merged = peft.PeftModel.from_pretrained(family.load(base), tmp_path / "lora").merge_and_unload()

    for name, weight in tuned.state_dict().items():
        assert torch.allclose(merged.state_dict()[name], weight, atol=1e-5), name
