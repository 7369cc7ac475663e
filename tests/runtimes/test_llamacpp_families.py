"""Adapters of several model families in the real llama.cpp: bases and adapters converted by its own scripts.

For each adapter, the verdict is compared with the behaviour of the converter and the engine; if there is an
export as GGUF, the engine's output with it equals PEFT's.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf")
pytest.importorskip("xllamacpp")
pytest.importorskip("torch")

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from adaptry import open_dir
from adaptry.checks.runtimes import check_runtime, parse_runtime
from adaptry.checks.runtimes.llamacpp_classes import KNOWN_CLASSES
from adaptry.checks.runtimes.llamacpp_names import ALIASES
from adaptry.compute.exporting import gguf_file
from adaptry.compute.exporting.export import export
from adaptry.compute.lazy_adapters.lazy_adapter import ParentAdapter
from adaptry.testing.quantised_samples import quantised_copy

from ..exporting.llamacpp import CONVERTER, log_probabilities
from .cases import ALL, PROMPTS, SIZES, Base, odds, saved
from .engine_queries import ask
from .matrix.engines import TOKENS

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(CONVERTER is None, reason="no environment for llamacpp: `make environments` makes it"),
]
NEAR = 5e-3
"""Its GELU is looked up in a table of half floats."""
LLAMACPP = parse_runtime("llama.cpp")
FIRST = [int(word[1:]) for word in PROMPTS[0].split()]
HEADS: dict[str, Any] = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
TIED: dict[str, Any] = {"tie_word_embeddings": True, "pad_token_id": 0}
LATENT: dict[str, Any] = {
    "num_key_value_heads": 2, "head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "first_k_dense_replace": 1, "kv_lora_rank": 16,
    "q_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 32, "n_group": 1,
    "topk_group": 1,
}  # fmt: skip
EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2}
BOTH = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@dataclass(frozen=True)
class Family:
    """`adapters`: by name, fields of PEFT's config, and llama.cpp's treatment of the adapter."""

    name: str
    config: dict[str, Any]
    adapters: dict[str, tuple[dict[str, Any], str]]


def of_modules(*names: str) -> dict[str, Any]:
    return {"target_modules": list(names)}


OF_EXPERTS: dict[str, tuple[dict[str, Any], str]] = {
    "every linear layer": ({"target_modules": "all-linear"}, "refused"),
    "the experts": ({"target_modules": [], "target_parameters": BOTH}, "refused"),
    "one matrix of the experts": ({"target_modules": [], "target_parameters": BOTH[1:]}, "refused"),
    "the other of the experts, and queries": (
        {**of_modules("q_proj"), "target_parameters": BOTH[:1]},
        "refused",
    ),
    "attention and the router": (of_modules("q_proj", "gate"), "as_trained"),
}
OF_TIED: dict[str, tuple[dict[str, Any], str]] = {
    "linear layers": (of_modules(*ALL), "as_trained"),
    "the embedding": (of_modules("q_proj", "embed_tokens"), "refused"),
}
FAMILIES = {
    family.name: family
    for family in (
        Family("Mixtral", {**EXPERTS, "num_local_experts": 4}, OF_EXPERTS),
        Family(
            "Qwen3Moe",
            {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 32, "norm_topk_prob": True},
            OF_EXPERTS,
        ),
        Family("Llama", TIED, OF_TIED),
        Family("Gemma", TIED, OF_TIED),
        Family(
            "DeepseekV2",
            LATENT,
            {
                "outputs": (of_modules("o_proj"), "as_trained"),
                "kv_b_proj": (of_modules("kv_b_proj"), "refused"),
                **{
                    name: (of_modules(name), "not_as_trained")
                    for name in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "lm_head")
                },
            },
        ),
        Family(
            "FalconH1",
            {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_state": 16, "mamba_d_head": 16},
            {
                "attention": (of_modules("q_proj", "o_proj"), "as_trained"),
                "in_proj": (of_modules("in_proj"), "refused"),
            },
        ),
        Family("Helium", {}, {"attention": (of_modules("q_proj"), "refused")}),
    )
}


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_llamacpp_treats_adapters_of_a_family_as_the_verdict_says(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    base = make_base(family, tmp_path / "base")
    adapters = {
        case: trained(base, fields, tmp_path / f"{number}")
        for number, (case, (fields, _)) in enumerate(family.adapters.items())
    }
    record = base.setting.record
    said = {case: check_runtime(open_dir(each), LLAMACPP, record).outcome for case, each in adapters.items()}
    assert said == {case: outcome for case, (_, outcome) in family.adapters.items()}

    file = converted_base(base.folder, tmp_path / "base.gguf")
    if file is None:
        assert set(said.values()) == {"refused"}
        return
    script = Path(__file__).with_name("llamacpp_engine.py")
    answers = ask(
        [sys.executable, script, CONVERTER or "", base.folder, file, TOKENS], list(adapters.values())
    )
    assert torch.allclose(torch.tensor(answers.ready["odds"]), odds(base.model), atol=NEAR)
    wanted = {case: by_peft(base, each) for case, each in adapters.items()}
    seen = {
        case: "refused"
        if "refused" in answer
        else "as_trained"
        if torch.allclose(torch.tensor(answer["odds"]), wanted[case], atol=NEAR)
        else "not_as_trained"
        for (case, answer) in zip(adapters, answers.found, strict=True)
    }
    assert seen == said
    if name not in ("Mixtral", "Qwen3Moe"):
        return
    for case, each in adapters.items():
        out = tmp_path / f"{each.name} exported"
        export(ParentAdapter(open_dir(each), "it"), out, base.setting, runtime=LLAMACPP)
        answer = log_probabilities(file, out / gguf_file.NAME, FIRST)
        assert torch.allclose(answer, wanted[case][0], atol=NEAR), case


@pytest.mark.parametrize("method", ["nf4", "int8"])
def test_an_adapter_of_a_quantised_base_is_exported_though_the_converter_does_not_know_the_base(
    method: str, tmp_path: Path
) -> None:
    base = make_base(Family("Llama", {}, {}), tmp_path / "base")
    adapter = trained(base, of_modules(*ALL), tmp_path / "adapter")
    packed = Base(base.model, quantised_copy(base.folder, tmp_path / "packed", method))
    shutil.copy(base.folder / "tokenizer.json", packed.folder)
    found = check_runtime(open_dir(adapter), LLAMACPP, packed.setting.record)
    assert [finding.code for finding in found.findings] == ["base_quantised"]
    script = [sys.executable, CONVERTER or "", adapter, "--base", packed.folder]
    script += ["--outfile", tmp_path / "theirs.gguf"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert "Quant method is not yet supported: 'bitsandbytes'" in done.stderr

    export(ParentAdapter(open_dir(adapter), "it"), tmp_path / "ours", packed.setting, runtime=LLAMACPP)

    file = converted_base(base.folder, tmp_path / "base.gguf")
    assert file is not None
    answer = log_probabilities(file, tmp_path / "ours" / gguf_file.NAME, FIRST)
    assert torch.allclose(answer, by_peft(base, adapter)[0], atol=NEAR)


def test_the_classes_that_the_converter_knows_are_listed() -> None:
    known = printed("from conversion import TEXT_MODEL_MAP; print(*TEXT_MODEL_MAP)")
    assert {one for one in known if one.endswith(("ForCausalLM", "LMHeadModel"))} == KNOWN_CLASSES


def test_alternative_names_of_modules_equal_the_converters_table() -> None:
    """The released gguf package has fewer names than the one beside the converter."""
    code = "import gguf, sys; names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)"
    code += "; print(*(names.get_name(name) for name in sys.argv[1:]))"
    for first, aliases in ALIASES.items():
        found = printed(code, *(f"model.layers.1.{name}" for name in (first, *aliases)))
        assert len(set(found)) == 1, (first, found)
        assert found[0].startswith("blk.1.")


def printed(code: str, *arguments: str) -> list[str]:
    """The words that the code prints with the packages of llama.cpp's checkout."""
    folder = Path(CONVERTER or "").parent
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(folder / "gguf-py")},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def make_base(family: Family, folder: Path) -> Base:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family.name}Config")
    model = getattr(transformers, f"{family.name}ForCausalLM")
    return saved(model(config(**{**SIZES, **HEADS, **family.config})).eval().float(), folder)


def trained(base: Base, fields: dict[str, Any], folder: Path) -> Path:
    torch.manual_seed(1)
    with warnings.catch_warnings(action="ignore"):
        tuned = get_peft_model(copy.deepcopy(base.model), LoraConfig(**{"r": 4, "lora_alpha": 8, **fields}))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)
    tuned.save_pretrained(str(folder))
    return folder


def by_peft(base: Base, adapter: Path) -> torch.Tensor:
    return odds(PeftModel.from_pretrained(copy.deepcopy(base.model), str(adapter)).eval())


def converted_base(folder: Path, file: Path) -> Path | None:
    """The converted base; None if the converter does not know the model."""
    script = Path(__file__).with_name("llamacpp_base.py")
    done = subprocess.run(
        [sys.executable, script, CONVERTER or "", folder, file], capture_output=True, text=True, check=False
    )
    if done.returncode and "NotImplementedError: Architecture" in done.stderr:
        return None
    assert done.returncode == 0, done.stderr[-1000:]
    return file
