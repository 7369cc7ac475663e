"""PEFT's treatment of each module that a TRAINABLE_TOKENS config selects in addition to the embedding."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402  (needs torch)

from .corpus import cases, make  # noqa: E402  (needs PEFT)
from .families import FAMILIES  # noqa: E402  (needs PEFT)
from .peft_comparison import ask_peft, ask_us, verdict, write  # noqa: E402  (needs PEFT)

pytestmark = pytest.mark.heavy

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


@pytest.mark.parametrize("targets", [["embed_tokens"], None])
def test_token_rows_of_a_tied_head_are_those_of_the_embedding(
    targets: list[str] | None, tmp_path: Path
) -> None:
    """Rows of only a head are compared with the live adapter in tests/merging/test_tied_heads.py, since
    PEFT's merge changes both.
    """
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "vocab_size": 96}
    config = transformers.LlamaConfig(**sizes, num_attention_heads=4, tie_word_embeddings=True)
    family = dataclasses.replace(
        FAMILIES["llama"], build=lambda: transformers.LlamaForCausalLM(config), linear=[]
    )
    base = family.save(tmp_path / "base", torch.float32)
    model = peft.get_peft_model(
        family.load(base),
        peft.TrainableTokensConfig(target_modules=targets, token_indices=[1, 5], task_type="CAUSAL_LM"),
    )
    for parameter in filter(lambda one: one.requires_grad, model.parameters()):
        torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "tone")

    ours = ask_us(base, tmp_path / "tone", tmp_path / "merged")

    assert not ours.blocked
    assert verdict(family, ask_peft(family, base, tmp_path / "tone"), ours) is None
