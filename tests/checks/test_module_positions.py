"""The places of modules in a base, under every name that a tool uses for them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from adaptry.adapters.base_record import TensorShape
from adaptry.adapters.spec import ExtraWeight, ModuleKind, ModuleSpec, Spec
from adaptry.bases.module_map import ModuleMap, place

LLAMA = {"model_type": "llama", "tie_word_embeddings": False}
GPT2 = {"model_type": "gpt2", "tie_word_embeddings": True}


def module(path: str, fan_in: int = 8, fan_out: int = 8, kind: ModuleKind = "linear") -> ModuleSpec:
    return ModuleSpec(
        path=path,
        kind=kind,
        rank=2,
        alpha=2,
        scale=1,
        fan_in=fan_in,
        fan_out=fan_out,
        tensors={"A": "a", "B": "b"},
    )


def shapes(**tensors: tuple[int, ...]) -> dict[str, TensorShape]:
    return {name.replace("__", "."): TensorShape(dtype="F32", shape=shape) for name, shape in tensors.items()}


def placed(
    modules: list[ModuleSpec], tensors: Mapping[str, TensorShape], facts: Mapping[str, object]
) -> ModuleMap:
    return place(Spec(method="lora", modules=tuple(modules)), tensors, facts)


def test_a_module_is_looked_up_by_its_own_name_first() -> None:
    tensors = shapes(model__layers__0__q__weight=(8, 8), other__model__layers__0__q__weight=(8, 8))
    found = placed([module("model.layers.0.q")], tensors, LLAMA)
    assert [item.tensor for item in found.placed] == ["model.layers.0.q.weight"]


@pytest.mark.parametrize("path", ["transformer.h.0.attn.c_attn", "h.0.attn.c_attn"], ids=["less", "as is"])
def test_a_prefix_missing_in_the_files_is_dropped(path: str) -> None:
    found = placed([module(path, 8, 24)], shapes(h__0__attn__c_attn__weight=(8, 24)), GPT2)
    assert [item.tensor for item in found.placed] == ["h.0.attn.c_attn.weight"]


def test_a_prefix_only_in_the_files_is_added() -> None:
    found = placed([module("encoder.layer.0.q")], shapes(bert__encoder__layer__0__q__weight=(8, 8)), LLAMA)
    assert [item.tensor for item in found.placed] == ["bert.encoder.layer.0.q.weight"]


def test_another_layer_is_never_mistaken_for_a_prefix() -> None:
    found = placed([module("model.layers.5.q.0.x")], shapes(model__layers__1__q__0__x__weight=(8, 8)), LLAMA)
    assert found.placed == ()
    assert found.reasons["model.layers.5.q.0.x"].kind == "absent"


def test_two_prefixes_are_ambiguous_and_nothing_is_guessed() -> None:
    tensors = shapes(left__layers__0__q__weight=(8, 8), right__layers__0__q__weight=(8, 8))
    found = placed([module("layers.0.q")], tensors, LLAMA)
    assert [item.path for item in found.missing] == ["layers.0.q"]
    assert found.reasons["layers.0.q"].kind == "ambiguous"


@pytest.mark.parametrize(
    ("memory", "disk"),
    [
        ("model.language_model.layers.0.q", "language_model.model.layers.0.q"),
        ("language_model.model.layers.0.q", "model.language_model.layers.0.q"),
        ("model.vision_tower.layers.0.q", "vision_tower.layers.0.q"),
        ("lm_head", "language_model.lm_head"),
    ],
)
def test_both_spellings_of_a_vision_language_model_are_known(memory: str, disk: str) -> None:
    found = placed([module(memory)], {f"{disk}.weight": TensorShape(dtype="F32", shape=(8, 8))}, LLAMA)
    assert [item.tensor for item in found.placed] == [f"{disk}.weight"]


def test_a_tied_head_maps_to_the_embedding() -> None:
    tied = LLAMA | {"tie_word_embeddings": True}
    found = placed([module("lm_head", 8, 32)], shapes(model__embed_tokens__weight=(32, 8)), tied)
    [item] = found.placed
    assert (item.tensor, item.orientation, item.tied) == ("model.embed_tokens.weight", "linear", True)


def test_an_absent_untied_head_is_missing() -> None:
    found = placed([module("lm_head", 8, 32)], shapes(model__embed_tokens__weight=(32, 8)), LLAMA)
    assert [item.path for item in found.missing] == ["lm_head"]


@pytest.mark.parametrize(
    ("path", "shape", "facts", "orientation"),
    [
        ("h.0.attn.c_proj", (8, 8), GPT2, "conv1d"),
        ("h.0.attn.c_proj", (8, 8), LLAMA, "linear"),
        ("lm_head", (8, 8), GPT2, "linear"),
        ("h.0.mlp.c_fc", (8, 24), LLAMA, "linear"),
        ("h.0.mlp.c_fc", (24, 8), GPT2, "conv1d"),
        ("h.0.mlp.c_fc", (8, 24), {}, "linear"),
        ("h.0.mlp.c_fc", (24, 8), {}, "linear"),
        ("layers.0.attention.query_key_value", (8, 8), {"model_type": "gpt_neox"}, "linear"),
    ],
    ids=[
        "list",
        "not listed",
        "a head",
        "list against shape",
        "shape against list",
        "a shape",
        "another",
        "neox",
    ],
)
def test_orientation_follows_from_the_architecture(
    path: str, shape: tuple[int, ...], facts: Mapping[str, object], orientation: str
) -> None:
    fan_out = 24 if 24 in shape else 8
    found = placed(
        [module(path, 8, fan_out)], {f"{path}.weight": TensorShape(dtype="F32", shape=shape)}, facts
    )
    assert [item.orientation for item in found.placed] == [orientation]


@pytest.mark.parametrize(
    ("wide", "flag", "certainty"),
    [((24, 8), False, "assumed"), ((24, 8), True, "unknown"), ((8, 24), False, "unknown")],
    ids=["beside linear layers", "with the flag", "beside conv1d layers"],
)
def test_nothing_shows_the_class_of_a_square_matrix_in_an_unknown_model(
    wide: tuple[int, int], flag: bool, certainty: str
) -> None:
    tensors = shapes(a__weight=(8, 8), a__bias=(8,), b__weight=wide, b__bias=(24,))
    spec = Spec(method="lora", modules=(module("a"), module("b", 8, 24)))
    found = place(spec, tensors, {"model_type": "unheard"}, fan_in_fan_out=flag)
    assert [(item.orientation, item.certainty) for item in found.placed] == [
        ("linear", certainty),
        ("linear" if wide == (24, 8) else "conv1d", "known"),
    ]


def test_a_fused_attention_maps_to_its_in_proj_weight() -> None:
    found = placed(
        [module("mha", 8, 24)], shapes(mha__in_proj_weight=(24, 8), mha__out_proj__weight=(8, 8)), LLAMA
    )
    assert [(item.tensor, item.orientation) for item in found.placed] == [("mha.in_proj_weight", "attention")]


def test_a_parameter_is_found_by_its_shape() -> None:
    experts = shapes(mlp__experts__gate_up_proj=(4, 24, 8), mlp__experts__down_proj=(4, 8, 12))
    modules = [
        module("mlp.experts", 12, 8, "parameter"),
        module("mlp.experts.base_layer", 8, 24, "parameter"),
    ]
    found = placed(modules, experts, LLAMA)
    assert [item.tensor for item in found.placed] == ["mlp.experts.down_proj", "mlp.experts.gate_up_proj"]


def test_fused_experts_are_not_found_in_a_base_of_single_ones() -> None:
    found = placed(
        [module("mlp.experts", 8, 8, "parameter")], shapes(mlp__experts__0__w1__weight=(8, 8)), LLAMA
    )
    assert found.reasons["mlp.experts"].kind == "experts"


def test_layer_norms_are_found_under_their_tensorflow_names() -> None:
    extra = ExtraWeight(target="bert.LayerNorm.bias", kind="bias", tensor="t", shape=(8,))
    found = place(Spec(method="lora", extras=(extra,)), shapes(bert__LayerNorm__beta=(8,)), LLAMA)
    assert [item.tensor for item in found.extras] == ["bert.LayerNorm.beta"]


def test_empty_factors_are_ignored() -> None:
    tensors = shapes(layers__0__experts__0__x__weight=(0, 8), layers__0__y__weight=(8, 8))
    modules = [module("layers.0.experts", 8, 8, "parameter"), module("layers.0.z", 8, 0)]
    found = placed(modules, tensors, {"model_type": "dinov2"})
    assert found.placed == ()
