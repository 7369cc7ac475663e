"""Initialisations and tasks in a config for which PEFT refuses the adapter, by the kind of layer or model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.checks.peft_oracle import save_trained
from tests.methods import experts, zoo
from tests.methods.families import FAMILIES
from tests.methods.peft_comparison import ask_peft, ask_us, verdict, write

from adaptry.bases.model_classes import cannot_generate, is_known_type

STARTS = ("corda", "eva", "gaussian", "lora_ga", "mica", "olora", "orthogonal", "pissa", "pissa_niter_4")
MODULES = (
    *(("llama", "q_proj"), ("llama", "embed_tokens"), ("gpt2", "c_attn"), ("gpt2", "attn.c_proj")),
    *(("resnet", "layer.0.convolution"), ("attention", "heads")),
)
PARAMETERS = (("qwen2_moe", "mlp.experts.down_proj"), ("llama", "q_proj.weight"))


def is_refused(family: str, config: peft.LoraConfig, start: str, folder: Path) -> tuple[bool, bool]:
    """Whether PEFT refuses the trained adapter with this initialisation, and whether we report it."""
    base = FAMILIES[family].save(folder / "base", torch.float32)
    save_trained(FAMILIES[family].load(base), config, folder / "tone")
    file = folder / "tone" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "init_lora_weights": start}))
    try:
        peft.PeftModel.from_pretrained(FAMILIES[family].load(base), folder / "tone")
    except (AttributeError, RuntimeError, ValueError):
        return True, bool(ask_us(base, folder / "tone", folder / "merged").blocked)
    return False, bool(ask_us(base, folder / "tone", folder / "merged").blocked)


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("family", "target"), MODULES, ids=".".join)
def test_an_initialisation_that_peft_cannot_compute_is_reported(
    family: str, target: str, start: str, tmp_path: Path
) -> None:
    theirs, ours = is_refused(family, peft.LoraConfig(r=4, target_modules=[target]), start, tmp_path)
    assert ours is theirs


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(("family", "target"), PARAMETERS, ids=".".join)
def test_an_initialisation_that_peft_cannot_compute_of_a_parameter_is_reported(
    family: str, target: str, start: str, tmp_path: Path
) -> None:
    config = peft.LoraConfig(r=4, target_modules=[], target_parameters=[target])
    theirs, ours = is_refused(family, config, start, tmp_path)
    assert ours is theirs


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize(
    "targets",
    [
        {"target_modules": ["w1", "w2", "w3"]},
        {"target_modules": ["gate"]},
        {"target_modules": [], "target_parameters": ["gate.weight"]},
    ],
    ids=["experts", "router", "parameter"],
)
def test_an_initialisation_of_experts_and_routers_is_computed_or_refused_as_by_peft(
    targets: dict[str, list[str]], start: str, tmp_path: Path
) -> None:
    family = experts.FAMILIES["mixtral"]
    base = family.save(tmp_path / "base", torch.float32)
    names = targets["target_modules"] or ["gate"]
    tensors = experts.factors(base, lambda path: 2 if path.rpartition(".")[2] in names else 0)
    if "target_parameters" in targets:
        tensors = {name.replace("block_sparse_moe", "mlp"): value for name, value in tensors.items()}
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 5, "init_lora_weights": start, **targets}
    adapter = write(tmp_path / "tone", tensors, {**fields, "task_type": "CAUSAL_LM"})

    ours = ask_us(base, adapter, tmp_path / "merged")

    assert verdict(family, ask_peft(family, base, adapter), ours) is None
    assert bool(ours.folder) is not (
        start in ("corda", "lora_ga", "mica", "pissa_niter_4") or bool(ours.blocked)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        *(("deberta-v2", "query_proj"), ("bert", "query"), ("t5", "q"), ("wav2vec2", "q_proj")),
        ("resnet", "layer.0.convolution"),
    ],
)
@pytest.mark.parametrize("task", ["CAUSAL_LM", "SEQ_2_SEQ_LM"])
def test_a_task_that_needs_generated_text_is_refused_for_models_that_cannot_generate(
    task: str, kind: str, target: str, tmp_path: Path
) -> None:
    base = zoo.save(kind, tmp_path / "base")
    save_trained(zoo.load(kind, base), peft.LoraConfig(r=4, target_modules=[target]), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "task_type": task}))
    try:
        peft.PeftModel.from_pretrained(zoo.load(kind, base), tmp_path / "tone")
    except AttributeError:
        assert any(
            "generates text" in each for each in ask_us(base, tmp_path / "tone", tmp_path / "m").blocked
        )
    else:
        assert not ask_us(base, tmp_path / "tone", tmp_path / "m").blocked


@pytest.mark.slow
def test_the_models_that_cannot_generate_text_are_those_of_transformers() -> None:
    mapping = transformers.models.auto.modeling_auto
    names: dict[str, set[str]] = {}
    for table in (value for key, value in vars(mapping).items() if key.endswith("_MAPPING_NAMES")):
        for kind, found in table.items():
            names.setdefault(kind, set()).update([found] if isinstance(found, str) else found)
    wrong = {
        kind
        for kind in filter(is_known_type, names)
        if cannot_generate(kind, "CAUSAL_LM") is _is_any_generating(names[kind])
    }
    assert wrong == set()


def _is_any_generating(names: set[str]) -> bool:
    """Whether a class with one of these names, or another class in its module, generates text."""
    classes = []
    for name in names:
        try:
            classes.append(getattr(transformers, name))
        except (AttributeError, ImportError):  # a library that it needs is not installed
            continue
    beside = [value for each in classes for value in vars(sys.modules[each.__module__]).values()]
    own = [
        each
        for each in beside
        if isinstance(each, type) and each.__module__ in {c.__module__ for c in classes}
    ]
    return any(hasattr(each, "prepare_inputs_for_generation") for each in (*classes, *own))


@pytest.mark.slow
@pytest.mark.parametrize("number", ["n_tasks", "n_skills", "n_splits"])
def test_a_poly_with_other_numbers_than_its_file_is_reported(number: str, tmp_path: Path) -> None:
    base = FAMILIES["llama"].save(tmp_path / "base", torch.float32)
    config = peft.PolyConfig(r=4, n_tasks=2, n_skills=3, target_modules=["q_proj"])
    save_trained(FAMILIES["llama"].load(base), config, tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), number: 4}))
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(FAMILIES["llama"].load(base), tmp_path / "tone")
    assert any(number in each for each in ask_us(base, tmp_path / "tone", tmp_path / "merged").blocked)


@pytest.mark.slow
@pytest.mark.parametrize("dimensions", [3, 4])
def test_a_factor_with_other_dimensions_than_the_other_is_reported(dimensions: int, tmp_path: Path) -> None:
    base = FAMILIES["llama"].save(tmp_path / "base", torch.float32)
    save_trained(FAMILIES["llama"].load(base), peft.LoraConfig(r=4), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("lora_B.weight"))
    tensors[name] = tensors[name].reshape(*tensors[name].shape, *[1] * (dimensions - 2))
    save_file(tensors, file)
    with pytest.raises(RuntimeError, match="size mismatch"):
        peft.PeftModel.from_pretrained(FAMILIES["llama"].load(base), tmp_path / "tone")
    assert ask_us(base, tmp_path / "tone", tmp_path / "merged").blocked


@pytest.mark.slow
@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "gaussian"])
@pytest.mark.parametrize("alpha", [-1, 0, 1])
@pytest.mark.parametrize("is_pattern", [False, True], ids=["of-all", "of-a-module"])
def test_an_alpha_from_which_peft_computes_nan_is_reported(
    is_pattern: bool, alpha: int, start: str, tmp_path: Path
) -> None:
    base = FAMILIES["llama"].save(tmp_path / "base", torch.float32)
    save_trained(FAMILIES["llama"].load(base), peft.LoraConfig(r=4), tmp_path / "tone")
    file = tmp_path / "tone" / "adapter_config.json"
    field = {"alpha_pattern": {"v_proj": alpha}} if is_pattern else {"lora_alpha": alpha}
    changed = {"init_lora_weights": start, **field}
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))

    live = peft.PeftModel.from_pretrained(FAMILIES["llama"].load(base), tmp_path / "tone")
    is_finite = all(bool(value.isfinite().all()) for value in live.merge_and_unload().parameters())

    found = ask_us(base, tmp_path / "tone", tmp_path / "merged").blocked
    assert (not is_finite) == any("NaN" in each for each in found)
