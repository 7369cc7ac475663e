"""vLLM's treatment of adapters of a multimodal model, and our verdicts about them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("PIL")

import peft
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from adaptry import open_dir
from adaptry.bases.fingerprinting import fingerprint
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.checks.runtimes import check_runtime, parse_runtime

from .matrix.engines import ENGINES

SCRIPT = Path(__file__).with_name("vllm_multimodal.py")
WORDS, IMAGE = 96, 95
PROMPT = [5, IMAGE, 7, 8]
TARGETS = {
    "language": r".*language_model.*(q_proj|v_proj|down_proj)",
    "tower": r".*vision_tower.*(q_proj|v_proj|fc1)",
}


@pytest.fixture(scope="module")
def python() -> str:
    found = ENGINES["vllm"].python
    if not found:
        pytest.skip("vLLM is not installed")
    return found


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small LLaVA with names of its vision tower as in checkpoints on the Hub, and its processor."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**sizes, num_attention_heads=2, vocab_size=WORDS),
        vision_config=transformers.CLIPVisionConfig(
            **sizes, num_attention_heads=4, image_size=28, patch_size=14
        ),
        image_token_index=IMAGE,
        vision_feature_layer=-1,
        image_seq_length=4,
    )
    transformers.LlavaForConditionalGeneration(config).float().save_pretrained(folder)
    as_on_the_hub(folder / "model.safetensors", "vision_tower.")
    words = {f"w{number}": number for number in range(IMAGE)} | {"<image>": IMAGE}
    split = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    split.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    named = {"unk_token": "w0", "pad_token": "w1", "bos_token": "w2", "eos_token": "w3"}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=split, additional_special_tokens=["<image>"], **named
    )
    pictures = transformers.CLIPImageProcessor(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    )
    transformers.LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return folder


def as_on_the_hub(file: Path, tower: str) -> None:
    renamed = {
        name.replace(tower, f"{tower}vision_model.", 1): value for name, value in load_file(file).items()
    }
    save_file(renamed, file, {"format": "pt"})


def trained(base: Path, folder: Path, targets: str) -> Any:
    """PEFT's model with an adapter of these modules, which is also saved. (`Any`: PEFT is not typed.)"""
    torch.manual_seed(1)
    model = transformers.LlavaForConditionalGeneration.from_pretrained(base)
    live = peft.get_peft_model(model.eval(), peft.LoraConfig(r=8, lora_alpha=16, target_modules=targets))
    with torch.no_grad():
        for name, parameter in live.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    live.save_pretrained(folder)
    return live


@pytest.mark.heavy
def test_vllm_applies_an_adapter_of_the_language_model_and_ignores_one_of_the_tower(
    python: str, base: Path, tmp_path: Path
) -> None:
    live = trained(base, tmp_path / "language", TARGETS["language"])
    trained(base, tmp_path / "tower", TARGETS["tower"])
    as_on_the_hub(tmp_path / "tower" / "adapter_model.safetensors", ".vision_tower.")
    words = torch.tensor([[word for word in PROMPT if word != IMAGE]])
    with torch.no_grad():
        wanted = live(input_ids=words).logits[0, -1].log_softmax(-1)

    folders = [str(tmp_path / name) for name in TARGETS]
    done = subprocess.run(
        [python, str(SCRIPT), str(base), json.dumps(PROMPT), *folders],
        capture_output=True,
        text=True,
        check=True,
    )
    plain, language, tower = (torch.tensor(json.loads(line)) for line in done.stdout.splitlines()[-3:])

    assert torch.allclose(language[0], wanted, atol=1e-3)
    assert not torch.allclose(language[0], plain[0], atol=1e-2)
    assert torch.equal(tower, plain)
    record = fingerprint(open_checkpoint(base))
    outcomes = {
        name: check_runtime(open_dir(tmp_path / name), parse_runtime("vllm"), record).outcome
        for name in TARGETS
    }
    assert outcomes == {"language": "as_trained", "tower": "not_as_trained"}
