"""Which matrices belong to transformers' Conv1D, determined by the model type or by the shapes of biases."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from adaptry.bases.conv1d import LinearClasses, is_named_conv1d

SHAPES: dict[str, tuple[int, ...]] = {
    "wide.weight": (8, 24), "wide.bias": (24,),
    "tall.weight": (24, 8), "tall.bias": (24,),
    "plain.weight": (8, 24),
    "square.weight": (8, 8), "square.bias": (8,),
    "attn.proj.weight": (8, 8), "attn.proj.bias": (8,),
    "mlp.proj.weight": (32, 8), "mlp.proj.bias": (8,),
    "heads.in_proj_weight": (24, 8), "heads.out_proj.weight": (8, 8), "heads.out_proj.bias": (8,),
    "kernel.weight": (8, 8, 3), "kernel.bias": (8,),
}  # fmt: skip


def classes(model_type: str, **parts: str) -> LinearClasses:
    facts = {"model_type": model_type, **{part: {"model_type": kind} for part, kind in parts.items()}}
    return LinearClasses(SHAPES.get, SHAPES, facts)


@pytest.mark.parametrize(
    ("path", "is_conv1d"),
    [
        ("wide", True), ("tall", False), ("plain", False), ("square", None), ("attn.proj", True),
        ("heads.out_proj", False), ("kernel", False),
    ],
)  # fmt: skip
def test_a_bias_or_a_module_of_the_same_name_shows_the_class(path: str, is_conv1d: bool | None) -> None:
    assert classes("unheard").is_conv1d(path) is is_conv1d
    assert classes("unheard").has_conv1d


def test_no_layer_of_a_known_type_is_a_conv1d_except_by_its_name() -> None:
    assert classes("llama").is_conv1d("square") is False
    assert classes("gpt2").is_conv1d("square") is False
    assert classes("gpt2").is_conv1d("h.0.attn.c_proj") is True


def test_a_gpt2_inside_another_model_has_conv1d_layers() -> None:
    inside = classes("vision-encoder-decoder", encoder="vit", decoder="gpt2")
    assert inside.is_conv1d("decoder.transformer.h.0.attn.c_proj") is True
    assert inside.is_conv1d("encoder.layer.0.output.dense") is False


def test_the_types_and_names_are_those_of_the_installed_transformers() -> None:
    found = find_spec("transformers")
    if found is None or found.origin is None:
        pytest.skip("transformers is not installed")
    for folder in (Path(found.origin).parent / "models").iterdir():
        code = "".join(path.read_text() for path in folder.glob("modeling_*.py"))
        configs = "".join(path.read_text() for path in folder.glob("configuration_*.py"))
        types = re.findall(r'^    model_type(?:: str)? = "(.+)"', configs, re.MULTILINE)
        names = set(re.findall(r"self\.(\w+) = Conv1D\(", code))
        for name in names:
            assert any(is_named_conv1d(f"h.0.{name}", kind) for kind in types), (folder.name, name)
        if types and not names:
            assert not any(is_named_conv1d("h.0.c_proj", kind) for kind in types), folder.name
