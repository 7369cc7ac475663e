"""Prompts and other parameters outside the weights: described, checked against the base, stored, and never
merged.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402  # torch may be missing

from adaptry import open_dir  # noqa: E402
from adaptry.adapters.adapter import Adapter  # noqa: E402
from adaptry.adapters.methods import METHODS  # noqa: E402
from adaptry.bases.fingerprinting import fingerprint  # noqa: E402
from adaptry.bases.hf_folder import open_checkpoint  # noqa: E402
from adaptry.checks import check  # noqa: E402
from adaptry.compute.merging.merge import MergeSource, merge  # noqa: E402
from adaptry.compute.merging.weighted_adapter import WeightedAdapter  # noqa: E402
from adaptry.compute.recipes.merge import MergeRecipe, RecipeInput  # noqa: E402
from adaptry.core.errors import CheckFailed, Unsupported  # noqa: E402
from adaptry.operations.transfer import pull, push  # noqa: E402
from adaptry.storage.connect import open_local  # noqa: E402

WEIGHTS = "adapter_model.safetensors"
CAUSAL = {"task_type": "CAUSAL_LM"}
SEQ2SEQ = {"task_type": "SEQ_2_SEQ_LM"}
LABELS = {"task_type": "SEQ_CLS"}
PAIR = ["q_proj", "v_proj"]


def llama(**fields: Any) -> Any:
    sizes = {
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 96, "max_position_embeddings": 64,
    }  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **fields}))


def t5() -> Any:
    sizes = {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 2, "d_ff": 64, "vocab_size": 96}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))


def bert() -> Any:
    sizes = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "vocab_size": 96, "num_labels": 3,
    }  # fmt: skip
    return transformers.BertForSequenceClassification(transformers.BertConfig(**sizes))


def cpt() -> Any:
    marks = {"cpt_mask": [1] * 4, "cpt_tokens_type_mask": [1, 2, 3, 4]}
    return peft.CPTConfig(**CAUSAL, cpt_token_ids=[1, 2, 3, 4], **marks)


Making = tuple[Callable[[], Any], Callable[[], Any]]
PROMPTS: dict[str, Making] = {
    "prompt": (llama, lambda: peft.PromptTuningConfig(**CAUSAL, num_virtual_tokens=5)),
    "prompt-t5": (t5, lambda: peft.PromptTuningConfig(**SEQ2SEQ, num_virtual_tokens=5)),
    "prompt-bert": (bert, lambda: peft.PromptTuningConfig(**LABELS, num_virtual_tokens=5)),
    "p-tuning": (llama, lambda: peft.PromptEncoderConfig(**CAUSAL, num_virtual_tokens=5)),
    "multitask": (t5, lambda: peft.MultitaskPromptTuningConfig(**SEQ2SEQ, num_virtual_tokens=5, num_tasks=2)),
    "cpt": (llama, cpt),
    "prefix": (llama, lambda: peft.PrefixTuningConfig(**CAUSAL, num_virtual_tokens=5)),
    "prefix-t5": (t5, lambda: peft.PrefixTuningConfig(**SEQ2SEQ, num_virtual_tokens=5)),
    "prefix-bert": (bert, lambda: peft.PrefixTuningConfig(**LABELS, num_virtual_tokens=5)),
    "cartridge": (llama, lambda: peft.CartridgeConfig(**CAUSAL, num_virtual_tokens=5)),
}
BESIDE: dict[str, Making] = {
    "adaption": (llama, lambda: peft.AdaptionPromptConfig(**CAUSAL, adapter_len=4, adapter_layers=1)),
    "lily": (llama, lambda: peft.LilyConfig(**CAUSAL, r=4, num_B=2, target_modules=PAIR)),
    "poly": (
        llama,
        lambda: peft.PolyConfig(**CAUSAL, r=2, n_tasks=2, n_skills=3, n_splits=2, target_modules=PAIR),
    ),
    "shadow": (llama, lambda: peft.ShadowConfig(**CAUSAL, r=4)),
}
ALL = {**PROMPTS, **BESIDE}


def made(kind: str, folder: Path) -> tuple[Path, Path]:
    """The base, and the adapter that PEFT saves, with random weights."""
    model, config = ALL[kind]
    torch.manual_seed(0)
    live = model()
    live.save_pretrained(folder / "base")
    adapted = peft.get_peft_model(live, config())
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


def findings(adapter: Path | Adapter, base: Path) -> dict[str, str]:
    opened = open_dir(adapter) if isinstance(adapter, Path) else adapter
    report = check(opened, fingerprint(open_checkpoint(base)))
    return {found.code: found.reason for found in report.findings}


def rewritten(adapter: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    save_file(change(load_file(adapter / WEIGHTS)), adapter / WEIGHTS, {"format": "pt"})
    return adapter


def configured(adapter: Path, **fields: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return adapter


def merged(adapter: Path, base: Path, target: Path) -> None:
    source = MergeSource(WeightedAdapter(open_dir(adapter), 1.0, "adapter"))
    merge(
        MergeRecipe(base="base", inputs=(RecipeInput(source="adapter"),)),
        open_checkpoint(base),
        [source],
        target,
    )


def logits(base: Path, adapter: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    live = peft.PeftModel.from_pretrained(model, adapter).eval()
    with torch.no_grad():
        return live(input_ids=torch.arange(1, 9)[None]).logits


@pytest.mark.parametrize("kind", ALL)
def test_every_tensor_is_claimed_and_its_own_base_gives_no_finding(kind: str, tmp_path: Path) -> None:
    base, adapter = made(kind, tmp_path)
    spec = open_dir(adapter).spec
    assert not spec.unclaimed
    assert findings(adapter, base) == {}


@pytest.mark.parametrize("kind", PROMPTS)
def test_a_prompts_virtual_tokens_are_counted_for_one_or_two_stacks(kind: str, tmp_path: Path) -> None:
    _, adapter = made(kind, tmp_path)
    spec = open_dir(adapter).spec
    assert spec.virtual_tokens == (4 if kind == "cpt" else 5)
    assert "prompt" in spec.shared
    assert not spec.modules


@pytest.mark.parametrize("kind", ["prompt-bert", "prefix-bert"])
def test_a_prompts_classifier_is_a_saved_module_under_one_prefix(kind: str, tmp_path: Path) -> None:
    _, adapter = made(kind, tmp_path)
    assert [extra.target for extra in open_dir(adapter).spec.extras] == [
        "classifier.bias",
        "classifier.weight",
    ]


def test_modules_beside_the_weights_have_rank_scale_and_width(tmp_path: Path) -> None:
    lily, poly, shadow, adaption = (
        open_dir(made(kind, tmp_path / kind)[1]).spec for kind in ("lily", "poly", "shadow", "adaption")
    )
    module = lily.modules[1]
    assert (module.path, module.rank, module.fan_in, module.fan_out) == (
        "model.layers.0.self_attn.v_proj", 4, 64, 32,
    )  # fmt: skip
    assert (poly.modules[1].rank, poly.modules[1].fan_out, poly.modules[1].scale) == (2, 32, 0.5)
    assert (shadow.modules[0].kind, shadow.rank, shadow.modules[0].scale) == ("block", 4, 0.1)
    assert any(role.startswith("backbone.") for role in shadow.shared)
    assert (adaption.virtual_tokens, adaption.modules[0].path) == (4, "model.layers.1.self_attn")


@pytest.mark.parametrize("kind", ALL)
def test_merging_is_refused_with_a_reason_and_a_remedy(kind: str, tmp_path: Path) -> None:
    base, adapter = made(kind, tmp_path)
    with pytest.raises(Unsupported, match="serve it unmerged"):
        merged(adapter, base, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


# PEFT passes a prefix by an argument's name that transformers is about to drop.
@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["prompt", "p-tuning", "cpt", "prefix", "cartridge"])
def test_a_pulled_prompt_answers_as_before(kind: str, tmp_path: Path) -> None:
    base, adapter = made(kind, tmp_path)
    registry = open_local(tmp_path / "registry")
    pushed = push(registry, open_dir(adapter), "acme/tone")
    pull(registry, "acme/tone", tmp_path / "pulled")
    assert pushed.version.method == open_dir(adapter).spec.method
    assert torch.equal(logits(base, tmp_path / "pulled"), logits(base, adapter))


@pytest.mark.parametrize("kind", ["prompt", "prefix", "multitask"])
def test_a_prompt_of_other_numbers_than_its_config_is_blocked(kind: str, tmp_path: Path) -> None:
    base, adapter = made(kind, tmp_path)
    configured(adapter, num_virtual_tokens=7)
    assert "prompt_mismatch" in findings(adapter, base)
    with pytest.raises(CheckFailed):
        push(open_local(tmp_path / "registry"), open_dir(adapter), "acme/tone")


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("prompt", {"hidden_size": 128}),
        ("prefix", {"num_hidden_layers": 3}),
        ("prefix", {"num_key_value_heads": 4}),
        ("cartridge", {"num_hidden_layers": 1}),
    ],
)
def test_a_prompt_for_another_model_does_not_fit(kind: str, other: dict[str, int], tmp_path: Path) -> None:
    _, adapter = made(kind, tmp_path)
    llama(**other).save_pretrained(tmp_path / "other")
    assert "prompt_width" in findings(adapter, tmp_path / "other")


def test_modules_added_to_a_layer_need_that_layer_with_that_width(tmp_path: Path) -> None:
    _, adapter = made("adaption", tmp_path)
    llama(num_hidden_layers=1).save_pretrained(tmp_path / "shallow")
    llama(hidden_size=128).save_pretrained(tmp_path / "wide")
    assert "module_missing" in findings(adapter, tmp_path / "shallow")
    assert "shape_mismatch" in findings(adapter, tmp_path / "wide")


def test_a_missing_task_matrix_is_found(tmp_path: Path) -> None:
    base, adapter = made("multitask", tmp_path)
    rewritten(adapter, lambda tensors: {k: v for k, v in tensors.items() if k != "prefix_task_rows"})
    assert "task_rows" in findings(adapter, base)["tensors_missing"]


def test_a_prompt_with_another_name_is_reported_as_without_effect(tmp_path: Path) -> None:
    base, adapter = made("prompt", tmp_path)
    rewritten(adapter, lambda tensors: {"soft_prompt": tensors["prompt_embeddings"]})
    assert "no_effect" in findings(adapter, base)


@pytest.mark.parametrize("kind", ["lily", "poly", "shadow", "adaption"])
def test_an_incomplete_module_is_reported_and_never_merged(kind: str, tmp_path: Path) -> None:
    base, adapter = made(kind, tmp_path)
    rewritten(adapter, lambda tensors: dict(list(tensors.items())[1:]))
    assert findings(adapter, base).keys() & {"keys_dropped", "no_effect"}
    with pytest.raises(Unsupported):
        merged(adapter, base, tmp_path / "merged")


def test_an_xlora_is_reported_with_its_lost_layer_and_its_members(tmp_path: Path) -> None:
    peft.get_peft_model(llama(), peft.LoraConfig(**CAUSAL, r=2, target_modules=PAIR)).save_pretrained(
        tmp_path / "member"
    )
    model = llama()
    model.config.use_cache = False
    members = {"member": str(tmp_path / "member")}
    config = peft.XLoraConfig(**CAUSAL, hidden_size=64, xlora_depth=2, xlora_size=8, adapters=members)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    llama().save_pretrained(tmp_path / "base")
    found = findings(tmp_path / "adapter", tmp_path / "base")
    assert "layers.0" in found["tensors_missing"]
    assert "its members" in found["limited_use"]


@pytest.mark.parametrize(
    "name",
    [
        "prompt_tuning",
        "p_tuning",
        "multitask_prompt_tuning",
        "cpt",
        "prefix_tuning",
        "cartridge",
        "adaption_prompt",
        "lily",
        "poly",
        "shadow",
        "xlora",
    ],
)
def test_every_method_without_a_merge_has_a_reason_and_a_remedy(name: str) -> None:
    assert "serve it unmerged" in METHODS[name].unmergeable_hint
