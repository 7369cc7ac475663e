"""Changes computed by compiled formulas are bit-equal to the same merges in torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.adapters.methods.top_k import top_k
from adaptry.testing.warm_python import run_warm

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    OneLayer,
    kernels_of,
    merged,
    model_of,
    save_adapter,
    save_base,
    weights_of,
)

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
    "mica": lambda: peft.LoraConfig(r=7, init_lora_weights="mica", target_modules=["linear"]),
    "delora": lambda: peft.DeloraConfig(r=7, target_modules=["linear"]),
    "glora": lambda: peft.GloraConfig(r=4, target_modules=["linear"]),
    "glora of vectors": lambda: peft.GloraConfig(config_A_B="vector", target_modules=["linear"]),
    "glora of numbers": lambda: peft.GloraConfig(config_A_B="constant", target_modules=["linear"]),
    "shira": lambda: peft.ShiraConfig(r=5, target_modules=["linear"]),
    "super-tuning": lambda: peft.SupertuningConfig(sparsity=0.99, target_modules=["linear"]),
    "super-tuning with a LoRA": lambda: peft.SupertuningConfig(
        sparsity=0.99, r=20, target_modules=["linear"]
    ),
    "oft of 16": lambda: peft.OFTConfig(oft_block_size=16, target_modules=["linear"]),
    "oft": lambda: peft.OFTConfig(oft_block_size=32, target_modules=["linear"]),
    "oft of 192": lambda: peft.OFTConfig(oft_block_size=192, target_modules=["linear"]),
    "oft of shared blocks": lambda: peft.OFTConfig(
        oft_block_size=32, block_share=True, num_cayley_neumann_terms=4, target_modules=["linear"]
    ),
    "unilora": lambda: peft.UniLoraConfig(r=4, save_indices=True, target_modules=["linear"]),
}  # fmt: skip


DIVISIBLE = 1024  # numbers of rows for methods that divide rows into equal parts
DIVIDING: dict[str, Callable[[], Any]] = {
    "gralora": lambda: peft.GraloraConfig(r=12, target_modules=["linear"]),
    "gralora in four blocks": lambda: peft.GraloraConfig(r=12, gralora_k=4, target_modules=["linear"]),
    "hybrid gralora": lambda: peft.GraloraConfig(r=12, hybrid_r=5, target_modules=["linear"]),
    "vblora": lambda: peft.VBLoRAConfig(r=4, num_vectors=256, vector_length=32, target_modules=["linear"]),
    "vblora of four vectors": lambda: peft.VBLoRAConfig(
        r=4, topk=4, num_vectors=256, vector_length=32, target_modules=["linear"]
    ),
    "vblora of a small bank": lambda: peft.VBLoRAConfig(
        r=4, topk=3, num_vectors=12, vector_length=32, target_modules=["linear"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32"])
def bases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The bases, by their number of rows."""
    found: dict[int, Path] = {}
    for rows in (OUT, DIVISIBLE):
        torch.manual_seed(0)
        model = OneLayer(rows, IN)
        with torch.no_grad():
            model.linear.weight.normal_()
            model.linear.weight[:2, :3] = torch.tensor([0.0, -0.0, 1e-39])
        found[rows] = save_base(model.to(getattr(torch, request.param)), tmp_path_factory.mktemp("base"))
    return found


@pytest.mark.parametrize("case", [*CASES, *DIVIDING])
def test_compiled_code_merges_a_method_to_the_same_bits_as_torch(
    bases: dict[int, Path], case: str, tmp_path: Path
) -> None:
    base = bases[OUT if case in CASES else DIVISIBLE]
    adapter = save_adapter(model_of(base), {**CASES, **DIVIDING}[case](), tmp_path / "adapter")
    assert kernels_of(base, adapter) == ("llvm",)

    compiled = merged(base, [adapter], tmp_path / "compiled")["linear.weight"]
    reference = merged(base, [adapter], tmp_path / "torch", kernel="torch")["linear.weight"]

    assert torch.equal(compiled.view(torch.uint8), reference.view(torch.uint8))
    assert not torch.equal(compiled, weights_of(base)["linear.weight"])


@pytest.mark.parametrize("case", ["dora", *DIVIDING])
def test_a_merge_in_compiled_code_does_not_import_torch(
    bases: dict[int, Path], case: str, tmp_path: Path
) -> None:
    base = bases[OUT if case in CASES else DIVISIBLE]
    adapter = save_adapter(model_of(base), {**CASES, **DIVIDING}[case](), tmp_path / "adapter")
    script = (
        "import sys; from adaptry_cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    command = ["merge", "--base", str(base), str(adapter), "-o", str(tmp_path / "merged")]

    found = run_warm([sys.executable, "-c", script, *command], capture_output=True, text=True)

    assert found.returncode == 0, found.stderr
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.parametrize("selected", [1, 2, 3, 4])
def test_the_largest_among_equal_numbers_are_those_of_torch(selected: int) -> None:
    torch.manual_seed(0)
    for count in (5, 64, 256):
        numbers = torch.randint(0, 40, (200, 3, count)).float()
        found = torch.from_numpy(top_k(numbers.numpy(), selected))
        assert torch.equal(found, numbers.topk(selected).indices)
