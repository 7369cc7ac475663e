"""Changes that compiled code computes as formulas: bit-equal to the same merges in torch, and without it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry import open_dir
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.compute.merging.kernels import choose_kernels
from adaptry.compute.merging.merge import MergeOptions, MergeSource, merge, plan_recipe
from adaptry.compute.merging.weighted_adapter import WeightedAdapter
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput
from adaptry.testing.warm_python import run_warm

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402  (needs torch)

OUT, IN = (
    1003,
    2112,
)  # several blocks; neither is a multiple of the rows or columns that are computed together

CASES: dict[str, Callable[[], Any]] = {
    "dora": lambda: peft.LoraConfig(r=7, use_dora=True, target_modules=["linear"]),
    "dora, rsLoRA": lambda: peft.LoraConfig(r=7, use_dora=True, use_rslora=True, target_modules=["linear"]),
    "loha": lambda: peft.LoHaConfig(r=7, alpha=3, target_modules=["linear"]),
    "lokr": lambda: peft.LoKrConfig(r=100, alpha=3, target_modules=["linear"]),
    "lokr of a factored matrix": lambda: peft.LoKrConfig(r=20, target_modules=["linear"]),
    "adalora": lambda: peft.AdaLoraConfig(init_r=7, total_step=4, target_modules=["linear"]),
    "ia3": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=[]),
    "ia3 of inputs": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=["linear"]),
    "vera": lambda: peft.VeraConfig(r=16, target_modules=["linear"]),
    "pvera": lambda: peft.PveraConfig(r=16, target_modules=["linear"]),
    "hira": lambda: peft.HiraConfig(r=7, target_modules=["linear"]),
    "miss": lambda: peft.MissConfig(r=50, target_modules=["linear"]),
    "unilora": lambda: peft.UniLoraConfig(r=4, save_indices=True, target_modules=["linear"]),
}  # fmt: skip


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(IN, OUT, bias=False)


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    weights = {"linear.weight": torch.randn(OUT, IN).to(getattr(torch, request.param))}
    weights["linear.weight"][:2, :3] = torch.tensor([0.0, -0.0, 1e-39])
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "tall"}))
    return folder


def adapter_of(base: Path, config: Any, folder: Path) -> Path:
    """(`Any`: PEFT is not typed.)"""
    torch.manual_seed(1)
    weight = load_file(base / "model.safetensors")["linear.weight"]
    model = Model().to(weight.dtype)
    model.load_state_dict({"linear.weight": weight})
    adapted = peft.get_peft_model(model, config)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "magnitude" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder)
    path = folder / "adapter_config.json"  # PEFT names this test's class, which nobody can import
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_mapping": None}))
    return folder


def merged(base: Path, adapter: Path, target: Path, kernel: str) -> Any:
    """The merged weight. (`Any`: a tensor.)"""
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "adapter"))
    recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="adapter"),))
    merge(recipe, open_checkpoint(base), [source], target, MergeOptions(kernel=kernel))
    return load_file(target / "model.safetensors")["linear.weight"]


def kernels_of(base: Path, adapter: Path) -> tuple[str, ...]:
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "adapter"))
    recipe = MergeRecipe(base="base", inputs=(RecipeInput(source="adapter"),))
    return choose_kernels().names_for(plan_recipe(recipe, open_checkpoint(base), [source]).changed_tensors)


@pytest.mark.parametrize("case", CASES)
def test_compiled_code_merges_a_method_to_the_same_bits_as_torch(
    base: Path, case: str, tmp_path: Path
) -> None:
    adapter = adapter_of(base, CASES[case](), tmp_path / "adapter")
    assert kernels_of(base, adapter) == ("llvm",)

    compiled = merged(base, adapter, tmp_path / "compiled", "auto")
    reference = merged(base, adapter, tmp_path / "torch", "torch")

    assert torch.equal(compiled.view(torch.uint8), reference.view(torch.uint8))


def test_a_merge_of_a_dora_does_not_import_torch(base: Path, tmp_path: Path) -> None:
    adapter = adapter_of(base, CASES["dora"](), tmp_path / "adapter")
    script = (
        "import sys; from adaptry_cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command = ["merge", "--base", str(base), str(adapter), "-o", str(tmp_path / "merged")]

    found = run_warm([sys.executable, "-c", script, *command], capture_output=True, text=True)

    assert found.returncode == 0, found.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()
