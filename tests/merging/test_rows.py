"""Changes that are merged in blocks of rows: bit-equal to PEFT's merge, without a whole weight in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adaptry.compute.tensors.kernel import BLOCK, THIN, unit_blocks

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from tests.merging.one_layer import (  # noqa: E402  (needs torch)
    OneLayer,
    merged,
    model_of,
    save_adapter,
    save_base,
)

from adaptry.compute.merging import dense_change  # noqa: E402  (needs torch)

OUT, IN = 6000, 64  # several blocks in bfloat16, the last one smaller

CASES: dict[str, Callable[[], Any]] = {
    "dora": lambda: peft.LoraConfig(r=6, use_dora=True, target_modules=["linear"]),
    "loha": lambda: peft.LoHaConfig(r=6, alpha=3, target_modules=["linear"]),
    "lokr": lambda: peft.LoKrConfig(r=6, alpha=3, target_modules=["linear"]),
    "lokr of a few large units": lambda: peft.LoKrConfig(r=6, decompose_factor=2, target_modules=["linear"]),
    "lokr of factored matrices": lambda: peft.LoKrConfig(
        r=2, decompose_both=True, decompose_factor=8, target_modules=["linear"]
    ),
    "adalora": lambda: peft.AdaLoraConfig(init_r=6, total_step=4, target_modules=["linear"]),
    "ia3": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=[]),
    "ia3 of inputs": lambda: peft.IA3Config(target_modules=["linear"], feedforward_modules=["linear"]),
    "vera": lambda: peft.VeraConfig(r=16, target_modules=["linear"]),
    "vblora": lambda: peft.VBLoRAConfig(r=4, num_vectors=8, vector_length=16, target_modules=["linear"]),
    "hira": lambda: peft.HiraConfig(r=6, target_modules=["linear"]),
    "delora": lambda: peft.DeloraConfig(r=6, target_modules=["linear"]),
    "miss": lambda: peft.MissConfig(r=16, target_modules=["linear"]),
    "glora": lambda: peft.GloraConfig(r=4, target_modules=["linear"]),
    "glora of vectors": lambda: peft.GloraConfig(config_A_B="vector", target_modules=["linear"]),
    "rows of LoRA with an initialisation": lambda: peft.LoraConfig(
        r=6, init_lora_weights="mica", target_modules=["linear"]
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save_base(OneLayer(OUT, IN).bfloat16(), tmp_path_factory.mktemp("base"))


def adapter_of(base: Path, case: str, folder: Path) -> Path:
    return save_adapter(model_of(base), CASES[case](), folder)


@pytest.fixture
def whole_weights(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors that were read into memory as a whole."""
    names: list[str] = []
    read = dense_change.read_base_weight

    def noting(reader: Any, place: Any) -> Any:
        names.append(place.shard)
        return read(reader, place)

    monkeypatch.setattr(dense_change, "read_base_weight", noting)
    return names


@pytest.mark.parametrize("case", CASES)
def test_rows_are_merged_as_peft_merges_the_whole_weight(
    base: Path, case: str, tmp_path: Path, whole_weights: list[str]
) -> None:
    adapter = adapter_of(base, case, tmp_path / "adapter")
    live = peft.PeftModel.from_pretrained(model_of(base), adapter)
    wanted = live.merge_and_unload().linear.weight

    found = merged(base, [adapter], tmp_path / "merged")["linear.weight"]

    assert torch.equal(found, wanted)
    assert not torch.equal(found, model_of(base).linear.weight)
    assert whole_weights == []


@pytest.mark.parametrize("dtype", [None, "F32"])
def test_several_methods_are_summed_by_rows_as_in_the_whole_weight(
    base: Path, dtype: str | None, tmp_path: Path, whole_weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["dora", "lokr", "ia3", "loha"]
    adapters = [adapter_of(base, name, tmp_path / name) for name in names]

    by_rows = merged(base, adapters, tmp_path / "by-rows", dtype=dtype)["linear.weight"]
    assert whole_weights == []
    monkeypatch.setattr(dense_change, "changes_by_rows", lambda *arguments: None)
    as_whole = merged(base, adapters, tmp_path / "as-whole", dtype=dtype)["linear.weight"]

    assert whole_weights
    assert torch.equal(by_rows, as_whole)


@pytest.mark.parametrize(
    ("rows", "row_bytes", "unit"),
    [(6000, 128, 1), (6000, 128, 75), (6000, 128, 3000), (2048, 11264, 32), (64, 4096, 64), (6, 8, 2)],
)
def test_blocks_cover_all_rows_and_keep_to_units(rows: int, row_bytes: int, unit: int) -> None:
    blocks = list(unit_blocks(rows, row_bytes, unit))

    assert [first for first, _ in blocks] == [
        sum(count for _, count in blocks[:place]) for place in range(len(blocks))
    ]
    assert sum(count for _, count in blocks) == rows
    for first, count in blocks:
        is_aligned = first % unit == 0 and count % unit == 0
        assert is_aligned or first // unit == (first + count - 1) // unit
        assert count * row_bytes <= max(BLOCK, (2 * THIN + unit) * row_bytes)
