"""Each `peft:` mode gives the tensors of PEFT's `add_weighted_adapter`, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from adaptry import open_dir
from adaptry.compute.combining import COMBINE_METHODS
from adaptry.compute.combining.combine import build_combined_adapter
from adaptry.compute.combining.peft_order import in_model_order
from adaptry.compute.combining.plan import plan_combination
from adaptry.compute.lazy_adapters.deltas import open_adapter_deltas
from adaptry.compute.lazy_adapters.folder_writer import write_adapter
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.compute.recipes.combine import CombineRecipe
from adaptry.compute.recipes.merge import RecipeInput
from adaptry.core.errors import CheckFailed, Invalid

from . import peft_library

MODES = [name.removeprefix("peft:") for name in COMBINE_METHODS if name.startswith("peft:")]
WEIGHTS = (0.7, -0.4, 1.3, 0.25, 1.0, 0.5, -1.0, 2.0)


def combined(folders: Sequence[Path], weights: Sequence[float], method: str, out: Path, **told: Any) -> Path:
    recipe = CombineRecipe(
        method=method,
        inputs=tuple(
            RecipeInput(source=str(each), weight=weight)
            for each, weight in zip(folders, weights, strict=True)
        ),
        **told,
    )
    write_adapter(
        build_combined_adapter(
            plan_combination(recipe, [ParentAdapter(open_dir(folder), folder.name) for folder in folders])
        ),
        out,
    )
    return out


def assert_same(ours: Path, theirs: dict[str, Tensor]) -> None:
    found = load_file(ours / "adapter_model.safetensors")
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(found[name], tensor), (
            f"{name} differs by {float((found[name] - tensor).abs().max())}"
        )


def pruning(mode: str) -> dict[str, float]:
    return {} if mode in ("linear", "cat", "svd") else {"density": 0.4}


@pytest.fixture(scope="module", params=list(peft_library.MODELS))
def model(request: pytest.FixtureRequest) -> tuple[str, nn.Module]:
    return request.param, peft_library.base(request.param)


@pytest.fixture(scope="module")
def folders(model: tuple[str, nn.Module], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    name, network = model
    root = tmp_path_factory.mktemp("adapters")
    return [peft_library.trained(network, name, root / f"a{seed}", seed) for seed in range(2)]


@pytest.mark.parametrize("mode", MODES)
def test_two_adapters_are_combined_as_by_peft(
    model: tuple[str, nn.Module], folders: list[Path], mode: str, tmp_path: Path
) -> None:
    density = pruning(mode)
    theirs, config = peft_library.weighted(model[1], folders, WEIGHTS[:2], mode, seed=5, **density)
    ours = combined(folders, WEIGHTS[:2], f"peft:{mode}", tmp_path / "out", seed=5, parameters=density)
    assert_same(ours, theirs)
    fields = open_dir(ours).config.fields
    assert (fields["r"], fields["lora_alpha"]) == (config.r, config.lora_alpha)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, list[Path]]:
    """Eight adapters of a Llama, with equal ranks and different modules."""
    network = peft_library.base("llama")
    root = tmp_path_factory.mktemp("many")
    targets = (["q_proj", "v_proj"], ["v_proj", "down_proj"], ["k_proj", "q_proj"])
    return network, [
        peft_library.trained(
            network, "llama", root / f"a{seed}", seed, target_modules=targets[seed % 3], lora_alpha=4 + seed
        )
        for seed in range(8)
    ]


@pytest.mark.parametrize("count", [4, 8])
@pytest.mark.parametrize("mode", MODES)
def test_several_adapters_with_different_modules_are_combined_as_by_peft(
    many: tuple[nn.Module, list[Path]], mode: str, count: int, tmp_path: Path
) -> None:
    network, folders = many[0], many[1][:count]
    theirs, _ = peft_library.weighted(network, folders, WEIGHTS[:count], mode, seed=9, **pruning(mode))
    assert_same(
        combined(
            folders, WEIGHTS[:count], f"peft:{mode}", tmp_path / "out", seed=9, parameters=pruning(mode)
        ),
        theirs,
    )


@pytest.mark.parametrize(
    ("mode", "parameters", "told"),
    [
        ("ties", {"density": 0.3, "majority_sign_method": "frequency"}, {}),
        ("ties_svd", {"density": 1.0}, {}),
        ("dare_ties_svd", {"density": 0.3, "majority_sign_method": "frequency"}, {"rank": 6}),
        ("svd", {"svd_clamp": 0.9}, {"rank": 2}),
        ("svd", {"svd_full_matrices": False}, {"rank": 3}),
        ("magnitude_prune", {"density": 0.0}, {}),
    ],
)
@pytest.mark.filterwarnings("ignore:The density")
def test_parameters_are_those_of_peft(
    many: tuple[nn.Module, list[Path]],
    mode: str,
    parameters: dict[str, Any],
    told: dict[str, int],
    tmp_path: Path,
) -> None:
    network, folders = many[0], many[1][:4]
    asked = parameters | ({"svd_rank": told["rank"]} if told else {})
    theirs, _ = peft_library.weighted(network, folders, WEIGHTS[:4], mode, **asked)
    assert_same(
        combined(folders, WEIGHTS[:4], f"peft:{mode}", tmp_path / "out", parameters=parameters, **told),
        theirs,
    )


@pytest.mark.parametrize("mode", ["ties", "dare_linear", "linear"])
def test_an_input_with_weight_zero_is_not_absent_for_peft(
    many: tuple[nn.Module, list[Path]], mode: str, tmp_path: Path
) -> None:
    network, folders = many[0], many[1][:3]
    theirs, _ = peft_library.weighted(network, folders, (1.0, 0.0, 2.0), mode, **pruning(mode))
    assert_same(
        combined(folders, (1.0, 0.0, 2.0), f"peft:{mode}", tmp_path / "out", parameters=pruning(mode)), theirs
    )


@pytest.mark.parametrize("mode", ["svd", "dare_ties", "cat"])
def test_one_adapter_is_always_linear(many: tuple[nn.Module, list[Path]], mode: str, tmp_path: Path) -> None:
    network, folders = many[0], many[1][:1]
    theirs, _ = peft_library.weighted(network, folders, [-0.5], mode, **pruning(mode))
    assert_same(combined(folders, [-0.5], f"peft:{mode}", tmp_path / "out", parameters=pruning(mode)), theirs)


@pytest.mark.parametrize("initial", [False, "gaussian"])
def test_masks_are_drawn_after_pefts_new_layers(initial: object, tmp_path: Path) -> None:
    network = peft_library.base("llama, with tokens")
    told = {"init_lora_weights": initial, "target_modules": ["q_proj", "v_proj"]}
    folders = [
        peft_library.trained(network, "llama", tmp_path / f"a{seed}", seed, **told) for seed in range(2)
    ]
    theirs, _ = peft_library.weighted(network, folders, (1.0, 0.5), "dare_linear", seed=3, density=0.5)
    assert_same(combined(folders, (1.0, 0.5), "peft:dare_linear", tmp_path / "out", seed=3), theirs)


@pytest.mark.parametrize("mode", ["cat", "svd", "ties_svd", "dare_linear_svd"])
def test_ranks_may_differ_where_peft_allows_it(mode: str, tmp_path: Path) -> None:
    network = peft_library.base("llama")
    told: list[dict[str, Any]] = [
        {"r": 2, "rank_pattern": {"layers.0.self_attn.q_proj": 5}},
        {"r": 3, "use_rslora": True, "alpha_pattern": {"v_proj": 7}},
    ]
    folders = [
        peft_library.trained(
            network, "llama", tmp_path / f"a{seed}", seed, target_modules=["q_proj", "v_proj"], **each
        )
        for seed, each in enumerate(told)
    ]
    theirs, config = peft_library.weighted(network, folders, (1.0, -0.5), mode, **pruning(mode))
    ours = combined(folders, (1.0, -0.5), f"peft:{mode}", tmp_path / "out", parameters=pruning(mode))
    assert_same(ours, theirs)
    assert open_dir(ours).config.fields["r"] == config.r


def test_modes_that_peft_lacks_are_refused_with_a_remedy(tmp_path: Path) -> None:
    network = peft_library.base("llama")
    small = peft_library.trained(network, "llama", tmp_path / "small", 1, r=2)
    large = peft_library.trained(network, "llama", tmp_path / "large", 2, r=4)
    lower = peft_library.trained(network, "llama", tmp_path / "lower", 3, r=4, layers_to_transform=[0])
    both = (1.0, 1.0)
    with pytest.raises(CheckFailed, match="all ranks must be equal"):
        combined([small, large], both, "peft:ties", tmp_path / "out")
    with pytest.raises(CheckFailed, match="differ in layers_to_transform"):
        combined([lower, large], both, "peft:cat", tmp_path / "out")
    with pytest.raises(CheckFailed, match="cannot have rank 33"):
        combined([small, large], both, "peft:svd", tmp_path / "out", rank=33)
    with pytest.raises(Invalid, match="rank is only for the types with svd"):
        combined([small, large], both, "peft:cat", tmp_path / "out", rank=3)
    with pytest.raises(Invalid, match="neither overrides by module"):
        combined([small, large], both, "peft:cat", tmp_path / "out", energy=0.9)
    with pytest.raises(Invalid, match="for a whole adapter"):
        modules = ({"match": "q_proj", "method": "peft:cat"},)
        plan_combination(
            CombineRecipe(method="linear", inputs=(RecipeInput(source=str(small)),), modules=modules),
            [ParentAdapter(open_dir(small), "small")],
        )


@pytest.mark.parametrize(
    ("mode", "method", "values"),
    [
        ("cat", "linear", {}),
        ("svd", "svd", {}),
        ("ties_svd", "ties", {"sign": "unweighted"}),
        ("magnitude_prune_svd", "magnitude_prune", {}),
    ],
)
def test_these_modes_are_methods_of_our_own_up_to_roundings(
    mode: str, method: str, values: dict[str, Any], tmp_path: Path
) -> None:
    network = peft_library.base("llama")
    folders = [
        peft_library.trained(network, "llama", tmp_path / f"a{seed}", seed, target_modules=["q_proj"])
        for seed in range(3)
    ]
    told: dict[str, Any] = {} if mode == "cat" else {"rank": 32}  # of a 32×32 weight: nothing is cut off
    first = combined(
        folders, WEIGHTS[:3], f"peft:{mode}", tmp_path / "peft", parameters=pruning(mode), **told
    )
    second = combined(
        folders, WEIGHTS[:3], method, tmp_path / "own", parameters={**pruning(mode), **values}, **told
    )
    theirs = open_adapter_deltas(ParentAdapter(open_dir(first), "theirs"))
    ours = open_adapter_deltas(ParentAdapter(open_dir(second), "ours"))
    for site in theirs.modules:
        expected = theirs.factors(site).dense()
        torch.testing.assert_close(ours.factors(site).dense(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", list(peft_library.MODELS))
def test_the_order_is_that_of_named_modules(name: str) -> None:
    targets = peft_library.MODELS[name][1]["target_modules"]
    registered = [
        path for path, _ in peft_library.base(name).named_modules() if path.rsplit(".", 1)[-1] in targets
    ]
    assert in_model_order(reversed(registered)) == registered


def test_the_plan_states_the_order_of_the_modules(many: tuple[nn.Module, list[Path]]) -> None:
    folders = many[1][:2]
    recipe = CombineRecipe(
        method="peft:dare_linear", inputs=tuple(RecipeInput(source=str(each)) for each in folders)
    )
    told = plan_combination(recipe, [ParentAdapter(open_dir(folder), folder.name) for folder in folders])
    assert any("model.layers.0.self_attn.q_proj first" in note for note in told.notes)
