"""The checks applied to bases that transformers saves and adapters that PEFT saves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from adaptry.adapters.adapter import open_dir  # noqa: E402  (after the libraries that may be missing)
from adaptry.adapters.base_record import BaseRecord  # noqa: E402
from adaptry.bases.fingerprinting import fingerprint  # noqa: E402
from adaptry.bases.fingerprinting.match import match_bases  # noqa: E402
from adaptry.bases.hf_folder import open_checkpoint  # noqa: E402
from adaptry.bases.module_map import place  # noqa: E402
from adaptry.checks import check  # noqa: E402
from adaptry.checks.weights import check_weights  # noqa: E402

# PEFT corrects fan_in_fan_out with a warning, and calls deprecated functions of transformers.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("UserWarning", "FutureWarning")]


def llama(**options: Any) -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, **options,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=32, vocab_size=64)
    return transformers.GPT2LMHeadModel(config)


def bert() -> Any:
    config = transformers.BertConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=64
    )
    return transformers.BertForSequenceClassification(config)


def saved(model: Any, folder: Path) -> BaseRecord:
    model.save_pretrained(folder)
    return fingerprint(open_checkpoint(folder))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("make", "options", "orientations"),
    [
        (llama, {"target_modules": "all-linear"}, {"linear"}),
        (llama, {"target_modules": ["q_proj", "embed_tokens"], "use_rslora": True}, {"linear", "embedding"}),
        (gpt2, {"target_modules": ["c_attn", "c_proj", "c_fc"]}, {"conv1d"}),
        (bert, {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}, {"linear"}),
    ],
    ids=["llama", "llama embeddings", "gpt2", "bert"],
)
def test_an_adapter_saved_by_peft_fits_its_base(
    tmp_path: Path, make: Any, options: dict[str, Any], orientations: set[str]
) -> None:
    model = make()
    base = saved(model, tmp_path / "base")
    config = peft.LoraConfig(r=4, init_lora_weights=False, **options)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    adapter = open_dir(tmp_path / "adapter")
    placement = place(adapter.spec, base.tensors, base.facts)
    assert {placed.orientation for placed in placement.placed} == orientations
    assert placement.missing == ()
    assert check(adapter, base).blocking == ()
    assert "layers_uncovered" not in {finding.code for finding in check(adapter, base).findings}
    assert check_weights(adapter) == []


def test_a_freshly_initialised_adapter_is_untrained(tmp_path: Path) -> None:
    peft.get_peft_model(llama(), peft.LoraConfig(r=4)).save_pretrained(tmp_path)
    assert [finding.code for finding in check_weights(open_dir(tmp_path))] == ["untrained"]


def test_an_adapter_for_another_architecture_is_refused(tmp_path: Path) -> None:
    base = saved(gpt2(), tmp_path / "base")
    peft.get_peft_model(llama(), peft.LoraConfig(r=4)).save_pretrained(tmp_path / "adapter")
    report = check(open_dir(tmp_path / "adapter"), base)
    assert [finding.code for finding in report.blocking] == ["module_missing"]


def test_the_bare_model_and_the_model_with_its_head_are_one_base(tmp_path: Path) -> None:
    model = gpt2()
    whole, bare = saved(model, tmp_path / "whole"), saved(model.transformer, tmp_path / "bare")
    assert whole.tensors.keys() != bare.tensors.keys()
    assert whole.id == bare.id


@pytest.mark.parametrize("path", ["whole", "bare"])
def test_an_adapter_fits_the_files_with_and_without_the_prefix(tmp_path: Path, path: str) -> None:
    model = gpt2()
    base = saved(model if path == "whole" else model.transformer, tmp_path / "base")
    tuned = peft.get_peft_model(
        model, peft.LoraConfig(r=4, target_modules=["c_attn"], init_lora_weights=False)
    )
    tuned.save_pretrained(tmp_path / "adapter")
    assert check(open_dir(tmp_path / "adapter"), base).blocking == ()


def test_a_resharded_base_is_the_same_base(tmp_path: Path) -> None:
    model = llama()
    one = saved(model, tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert fingerprint(open_checkpoint(tmp_path / "many")).id == one.id


@pytest.mark.parametrize("options", [{}, {"tie_word_embeddings": True}], ids=["untied", "tied"])
def test_a_config_as_transformers_4_wrote_it_is_the_same_base(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    new = saved(llama(**options), tmp_path)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    rope = fields.pop("rope_parameters")
    fields |= {"torch_dtype": fields.pop("dtype"), "rope_theta": rope["rope_theta"], "rope_scaling": None}
    fields.pop("head_dim")
    if options:
        fields.pop("tie_word_embeddings")  # the default of the base class, which is not written
    path.write_text(json.dumps(fields))
    assert fingerprint(open_checkpoint(tmp_path)).id == new.id


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_cast_made_with_torch_is_recognised(tmp_path: Path, dtype: str) -> None:
    model = llama()
    wide = saved(model, tmp_path / "wide")
    narrow = saved(model.to(getattr(torch, dtype)), tmp_path / "narrow")
    assert match_bases(wide, narrow).level == "cast"
    assert wide.architecture == narrow.architecture


def test_a_perturbation_of_a_thousandth_is_not_a_cast(tmp_path: Path) -> None:
    model = llama()
    before = saved(model, tmp_path / "before")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + 1e-3 * torch.randn_like(parameter))
    assert match_bases(before, saved(model.to(torch.bfloat16), tmp_path / "after")).level == "same_shapes"
