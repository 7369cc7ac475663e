"""A computed LoRA has PEFT's layout for every kind of layer: PEFT loads it, and its update is the sum of the
parents' updates.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from adaptry.adapters.adapter import open_dir  # noqa: E402
from adaptry.compute.combining.combine import build_combined_adapter  # noqa: E402
from adaptry.compute.combining.plan import plan_combination  # noqa: E402
from adaptry.compute.lazy_adapters.folder_writer import write_adapter  # noqa: E402
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter  # noqa: E402
from adaptry.compute.recipes.combine import CombineRecipe  # noqa: E402
from adaptry.compute.recipes.merge import RecipeInput  # noqa: E402
from adaptry.core.errors import CheckFailed  # noqa: E402

_SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 64}


class Convolutions(torch.nn.Module):
    """One convolution of each dimension, and the attributes that PEFT requires of a model."""

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Conv1d(4, 6, 3)
        self.two = torch.nn.Conv2d(4, 6, (3, 2))
        self.three = torch.nn.Conv3d(2, 4, 2)
        self.small = torch.nn.Conv2d(4, 6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(x)


def llama() -> Any:
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(hidden_size=32, intermediate_size=48, **_SMALL)
    )


def gpt2() -> Any:
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=64, n_positions=32)
    )


def mixtral() -> Any:
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(hidden_size=32, intermediate_size=48, num_local_experts=4, **_SMALL)
    )


_EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
KINDS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "linear": (llama, {"target_modules": ["q_proj", "down_proj"]}, {"target_modules": ["q_proj", "v_proj"]}),
    "rslora and patterns": (
        llama,
        {"target_modules": ["q_proj"], "use_rslora": True, "lora_alpha": 3},
        {"target_modules": ["q_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 2},
         "alpha_pattern": {"q_proj": 5}},
    ),
    "conv1d": (gpt2, {"target_modules": ["c_attn"]}, {"target_modules": ["c_attn", "c_proj"]}),
    "embedding": (
        llama, {"target_modules": ["embed_tokens"]}, {"target_modules": ["embed_tokens", "k_proj"]}),
    "convolutions": (
        Convolutions,
        {"target_modules": ["one", "two", "three", "small"]},
        {"target_modules": ["two", "three", "small"]},
    ),
    "experts": (
        mixtral,
        {"target_modules": [], "target_parameters": _EXPERTS[:1]},
        {"target_modules": ["q_proj"], "target_parameters": _EXPERTS, "lora_alpha": 3},
    ),
}  # fmt: skip


def trained(model: Any, fields: dict[str, Any], rank: int, folder: Path) -> Path:
    """A LoRA of `model` with values everywhere, saved by PEFT."""
    torch.manual_seed(rank)
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**{"r": rank, **fields}))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(folder, save_embedding_layers=False)
    config = folder / "adapter_config.json"  # loaders must not import the test's own class
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_mapping": None}))
    return folder


def change(model: Any, folder: Path) -> dict[str, Any]:
    """The changes made by PEFT's merge, in float64."""
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(model), folder).merge_and_unload().state_dict()
    return {name: merged[name].double() - weight.double() for name, weight in model.state_dict().items()}


# PEFT warns about patterns of parameters, and uses them nevertheless.
@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("uniform", [True, False], ids=["one rank", "own ranks"])
@pytest.mark.parametrize("kind", KINDS)
def test_peft_gets_the_sum_of_the_updates_from_a_stack(tmp_path: Path, kind: str, uniform: bool) -> None:
    make, first, second = KINDS[kind]
    torch.manual_seed(0)
    model = make()
    folders = [trained(model, first, 4, tmp_path / "a"), trained(model, second, 3, tmp_path / "b")]
    recipe = CombineRecipe(
        inputs=({"source": "a"}, {"source": "b", "weight": -0.5}),
        uniform=uniform,  # type: ignore[arg-type]
    )

    write_adapter(
        build_combined_adapter(
            plan_combination(recipe, [ParentAdapter(open_dir(folder), folder.name) for folder in folders])
        ),
        tmp_path / "both",
    )

    changes = [change(model, folder) for folder in folders]
    stacked = change(model, tmp_path / "both")
    for name, found in stacked.items():
        assert torch.allclose(found, changes[0][name] - 0.5 * changes[1][name], atol=2e-6), name
    assert any(found.any() for found in stacked.values())
    spec = open_dir(tmp_path / "both").spec
    assert not spec.unclaimed and {module.scale for module in spec.modules} == {1.0}
    if kind != "experts":
        assert (len(spec.ranks) == 1) or not uniform


def head_and_updates(model: Any, folder: Path, seed: int) -> ParentAdapter:
    """A LoRA with its own complete head."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.save_pretrained(folder)
    return ParentAdapter(open_dir(folder), folder.name)


def test_a_head_of_one_parent_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = llama()
    plain = ParentAdapter(
        open_dir(trained(model, {"target_modules": ["q_proj"]}, 2, tmp_path / "plain")), "plain"
    )
    with_head = head_and_updates(model, tmp_path / "head", 1)
    recipe = CombineRecipe(inputs=({"source": "plain"}, {"source": "head"}))  # type: ignore[arg-type]

    made = build_combined_adapter(plan_combination(recipe, [plain, with_head]))
    write_adapter(made, tmp_path / "both")

    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "both").merge_and_unload()
    (extra,) = with_head.adapter.spec.extras
    from safetensors.torch import load_file

    assert torch.equal(
        loaded.lm_head.weight, load_file(tmp_path / "head/adapter_model.safetensors")[extra.tensor]
    )
    assert any("copied unchanged from head" in note for note in made.notes)


def test_the_caller_must_choose_between_two_different_heads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = llama()
    parents = [head_and_updates(model, tmp_path / f"head{seed}", seed) for seed in (1, 2)]
    inputs = (RecipeInput(source="head1"), RecipeInput(source="head2"))

    with pytest.raises(CheckFailed, match="--whole-weights"):
        plan_combination(CombineRecipe(inputs=inputs), parents)
    chosen = plan_combination(CombineRecipe(inputs=inputs, whole_weights="head2"), parents)
    dropped = plan_combination(CombineRecipe(inputs=inputs, whole_weights="none"), parents)

    assert chosen.whole.adapter is parents[1].adapter
    assert not dropped.whole.names and "left out" in dropped.whole.notes[0]
