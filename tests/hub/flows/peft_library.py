"""PEFT and transformers: lines 42 to 46."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)
from world import CARD, CONFIG, WEIGHTS, World, line, raises, refused

BASE = "org/tiny"
"""The server stores it, and serves it under this name."""


def base(world: World) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(world.folders / "base", dtype=torch.float32)


def trained(world: World, seed: int, name: str = BASE, adapter: str = "default") -> PeftModel:
    """A LoRA of the base with random weights, whose config names the base `name`."""
    torch.manual_seed(seed)
    model = base(world)
    model.name_or_path = model.config._name_or_path = name
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    lora = get_peft_model(model, config, adapter_name=adapter)
    for key, parameter in lora.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    return lora.eval()


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(torch.arange(1, 9)[None]).logits


def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2, "c": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", pad_token="<unk>")


@contextmanager
def same(expected: torch.Tensor) -> Iterator[list[torch.nn.Module]]:
    """Asserts that the models appended to the list give these logits, bit for bit."""
    found: list[torch.nn.Module] = []
    yield found
    for number, model in enumerate(found):
        assert torch.equal(logits(model), expected), number


@line(42)
def push_to_hub(world: World) -> None:
    name = world.name()
    trained(world, 1, "org/unknown").push_to_hub(name)
    trained(world, 2, "org/unknown").push_to_hub(name)
    trained(world, 3, "org/unknown").push_to_hub(name, revision="exp", private=True)
    refs = world.api().list_repo_refs(name)
    assert {tag.name for tag in refs.tags} == {"v1", "v2"}
    assert {branch.name for branch in refs.branches} == {"main", "exp"}
    assert {CONFIG, WEIGHTS, CARD} <= set(world.api().list_repo_files(name))
    assert world.api().model_info(name).card_data.base_model == "org/unknown"


@line(43)
def from_pretrained(world: World) -> None:
    name = world.name()
    first, second = trained(world, 1), trained(world, 2)
    first.push_to_hub(name)
    second.push_to_hub(name)
    world.command("alias", "set", f"{name}@1", "prod")
    assert PeftConfig.from_pretrained(name).base_model_name_or_path == BASE
    with same(logits(first)) as found:
        found += [PeftModel.from_pretrained(base(world), name, revision=word) for word in ("v1", "prod")]
    with same(logits(second)) as found:
        model = PeftModel.from_pretrained(base(world), name)
        found.append(model)
    model.load_adapter(name, "other", revision="v1")
    model.set_adapter("other")
    assert torch.equal(logits(model), logits(first))
    with raises(ValueError):
        PeftConfig.from_pretrained(world.name("other"))


@line(44)
def auto_classes(world: World) -> None:
    """The base comes from the server too."""
    name = world.name()
    first, second = trained(world, 1), trained(world, 2)
    first.push_to_hub(name)
    second.push_to_hub(name)
    with same(logits(second)) as found:
        found += [
            AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32),
            AutoPeftModelForCausalLM.from_pretrained(name, dtype=torch.float32),
        ]
        model = base(world)
        model.load_adapter(name)
        found.append(model)
    with same(logits(first)) as found:
        at = {"revision": "v1"}
        found.append(AutoModelForCausalLM.from_pretrained(name, adapter_kwargs=at, dtype=torch.float32))


@line(45)
def a_trainer(world: World) -> None:
    name = world.name()
    rows = [{"input_ids": list(range(1, 9)), "labels": list(range(1, 9))}] * 8
    arguments = TrainingArguments(
        output_dir=str(world.scratch / "out"),
        max_steps=2,
        save_steps=1,
        per_device_train_batch_size=1,
        push_to_hub=True,
        hub_model_id=name,
        report_to=[],
        use_cpu=True,
    )
    trainer = Trainer(model=trained(world, 1), args=arguments, train_dataset=rows)
    trainer.train()
    trainer.push_to_hub()
    found = set(world.api().list_repo_files(name))
    assert {CONFIG, WEIGHTS, CARD} <= found, found
    assert "training_args.bin" not in found
    assert torch.equal(logits(PeftModel.from_pretrained(base(world), name)), logits(trainer.model))


@line(46)
def a_tokenizer(world: World) -> None:
    name = world.name()
    trained(world, 1).push_to_hub(name)
    words = tokenizer()
    words.push_to_hub(name)
    assert AutoTokenizer.from_pretrained(name)("a b c")["input_ids"] == words("a b c")["input_ids"]
    assert [tag.name for tag in world.api().list_repo_refs(name).tags] == ["v1"]


@line(75)
def an_adapter_with_a_name(world: World) -> None:
    """PEFT saves it in a folder of that name, which a version cannot have: only the card would be stored."""
    name = world.name()
    trained(world, 1).push_to_hub(name)
    before = world.api().model_info(name).sha
    named = trained(world, 2, adapter="warm")
    with refused(400, "without the folder"):
        named.push_to_hub(name)
    assert world.api().model_info(name).sha == before
    named.push_to_hub(name, revision="drafts")
    at = {"revision": "drafts", "subfolder": "warm"}
    with same(logits(named)) as found:
        found.append(PeftModel.from_pretrained(base(world), name, **at))
