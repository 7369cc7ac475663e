"""What PEFT does with each module that a config of TRAINABLE_TOKENS selects beside the embedding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file

from .corpus import cases, make
from .families import FAMILIES
from .judging import ask_peft, ask_us, verdict, write

CASES = {case.family: case for case in cases(dtypes=["fp32"]) if case.method == "trainable_tokens"}


@pytest.mark.slow
@pytest.mark.parametrize("family", CASES)
@pytest.mark.parametrize("rows", [[1, 5, 3], [1, 5, 40]])
def test_token_rows_of_any_module_are_judged_as_peft_does(
    family: str, rows: list[int], tmp_path: Path
) -> None:
    made = make(CASES[family], tmp_path / "corpus")
    config = json.loads((made.adapter / "adapter_config.json").read_text())
    tensors = load_file(made.adapter / "adapter_model.safetensors")
    trained = {name.split(".")[-2] for name in tensors}
    model = FAMILIES[family].load(made.base)
    wrong = {}
    for name in sorted({path.rpartition(".")[2] for path, _ in model.named_modules()} - {"", *trained}):
        config.update(target_modules=[*trained, name], token_indices=rows)
        adapter = write(tmp_path / name, tensors, config)
        ours = ask_us(made.base, adapter, tmp_path / f"merged-{name}")
        if answer := verdict(FAMILIES[family], ask_peft(FAMILIES[family], made.base, adapter), ours):
            wrong[name] = answer
    assert wrong == {}
