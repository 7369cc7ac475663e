"""Publishing an RL policy step by step: engines serve its newest version, and older ones drain and leave the
window.
"""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

import adaptry
from adaptry.core.errors import CheckFailed, Invalid, NotFound, Unavailable
from adaptry.core.refs import AdapterName, Ref
from adaptry.integrations.rl import Publisher
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import EngineClient
from adaptry.integrations.serving.engines.sglang import Sglang
from adaptry.integrations.serving.engines.vllm import Vllm
from adaptry.testing.samples import tiny_base

from .conftest import Scene, settle

POLICY = AdapterName.parse("acme/policy")
KINDS = {"vllm": Vllm, "sglang": Sglang}


@pytest.fixture
def model() -> Any:
    """A policy to publish. (`Any`: a PEFT model.)"""
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, vocab_size=32,
    )  # fmt: skip
    torch.manual_seed(0)
    return peft.get_peft_model(
        transformers.LlamaForCausalLM(config), peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"])
    )


def learn(model: Any) -> None:
    """Changes the policy by one random step."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value += torch.randn(value.shape)


def test_each_version_has_the_step_the_metrics_and_the_one_before(scene: Scene, model: Any) -> None:
    publisher = Publisher(scene.registry, "acme/policy", run="first")
    for step in (10, 20):
        learn(model)
        publisher.publish(model, step, {"reward": step / 100})
    first, second = (scene.registry.versions.detail(Ref.parse(f"acme/policy@{number}")) for number in (1, 2))
    assert second.manifest.parents == (first.version.digest,)
    assert second.manifest.provenance == {"run": "first", "step": "20"}
    assert second.version.metrics == {"reward": 0.2}
    assert scene.registry.versions.get(Ref.parse("acme/policy@live")).number == 2
    stored = adaptry.load("acme/policy@live", registry=scene.registry, cache=Cache(scene.folder / "cache"))
    trained = peft.get_peft_model_state_dict(model)
    assert all(torch.equal(stored[name], value) for name, value in trained.items())


def test_versions_that_leave_the_window_are_yanked_unless_referenced(scene: Scene, model: Any) -> None:
    publisher = Publisher(scene.registry, POLICY, window=2)
    for step in range(5):
        learn(model)
        version = publisher.publish(model, step).version
        if step == 1:
            scene.alias(version, "champion")
    states = {each.number: each.state for each in scene.registry.versions.list(POLICY).items}
    assert states == {1: "yanked", 2: "active", 3: "yanked", 4: "active", 5: "active"}


def test_a_restarted_program_continues_with_its_window(scene: Scene, model: Any) -> None:
    scene.publish(7, name=POLICY)
    for step in range(3):
        learn(model)
        Publisher(scene.registry, POLICY, window=2, run="same").publish(model, step)
    states = {each.number: each.state for each in scene.registry.versions.list(POLICY).items}
    assert states == {1: "active", 2: "yanked", 3: "active", 4: "active"}
    newest = scene.registry.versions.detail(Ref.parse("acme/policy@4"))
    assert newest.manifest.parents == (scene.registry.versions.get(Ref.parse("acme/policy@3")).digest,)


def test_a_policy_that_did_not_change_is_the_same_version(scene: Scene, model: Any) -> None:
    publisher = Publisher(scene.registry, POLICY, run="same")
    first = publisher.publish(model, 1).version
    learn(model)
    second = publisher.publish(model, 2).version
    assert (first.number, second.number) == (1, 2)
    assert scene.registry.versions.get(Ref.parse("acme/policy@live")).number == 2


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_engines_answer_from_each_version_under_its_own_name(
    scene: Scene, model: Any, kind: str, tmp_path: Path
) -> None:
    engines = [scene.engine(kind), scene.engine(kind)]
    spoken = [KINDS[kind](EngineClient(engine.url)) for engine in engines]
    publisher = Publisher(scene.registry, POLICY, engines=spoken, cache=Cache(tmp_path / "engines"))
    for step in range(4):
        learn(model)
        published = publisher.publish(model, step)
        assert published.model == f"acme/policy@{step + 1}"
        publisher.drain(timeout=60)
        for engine in engines:
            assert list(engine.names()) == [published.model]
            assert published.version.digest.hex in engine.names()[published.model]
            assert KINDS[kind](EngineClient(engine.url)).send_test_request(published.model).is_ok
            assert engine.most <= 2


def test_a_version_in_use_is_drained_before_it_is_unloaded(scene: Scene, model: Any, tmp_path: Path) -> None:
    engine = scene.engine("vllm")
    spoken = Vllm(EngineClient(engine.url))
    publisher = Publisher(scene.registry, POLICY, engines=[spoken], cache=Cache(tmp_path / "engines"))
    old = publisher.publish(model, 1)
    engine.running = (old.model,)
    learn(model)
    new = publisher.publish(model, 2)
    with pytest.raises(Unavailable, match=engine.url):
        publisher.drain(timeout=0.05, poll=0.01)
    assert set(engine.names()) == {old.model, new.model}
    spoken.load("acme/policy@prod", Path(engine.names()[old.model]))
    engine.running = (new.model,)
    publisher.drain(timeout=60)
    assert set(engine.names()) == {new.model, "acme/policy@prod"}, "what others loaded is theirs"


def test_an_engines_refusal_is_reported_and_the_next_try_continues(
    scene: Scene, model: Any, tmp_path: Path
) -> None:
    engine = scene.engine("vllm")
    publisher = Publisher(
        scene.registry,
        POLICY,
        engines=[Vllm(EngineClient(engine.url))],
        cache=Cache(tmp_path / "engines"),
    )
    engine.stop()
    with pytest.raises(Unavailable):
        publisher.publish(model, 1)
    engine.start()
    assert publisher.publish(model, 1).version.number == 1
    publisher.drain(timeout=60)
    assert list(engine.names()) == ["acme/policy@1"]


def test_followers_are_waited_for(scene: Scene, model: Any) -> None:
    engine = scene.engine("vllm")
    publisher = Publisher(scene.registry, POLICY, alias="prod", base=scene.folder / "base")
    worker = scene.worker(engine, watch=("acme/policy@prod",))
    publisher.publish(model, 1)
    settle(worker)
    assert scene.registry.workers.get("gpu-1").problems == ()
    publisher.drain(timeout=60)
    learn(model)
    published = publisher.publish(model, 2)
    assert published.model == "acme/policy@prod"
    with pytest.raises(Unavailable, match="gpu-1"):
        publisher.drain(timeout=0.05, poll=0.01)
    settle(worker)
    publisher.drain(timeout=60)


def test_a_policy_claims_only_the_model_in_the_folder_from_which_it_was_loaded(
    scene: Scene, model: Any
) -> None:
    """The two models have equal shapes. The folder is read once."""
    model.peft_config["default"].base_model_name_or_path = str(scene.folder / "base")
    other = tiny_base(scene.folder / "other", seed=5)
    with pytest.raises(CheckFailed, match="is another model: the weights differ in"):
        Publisher(scene.registry, POLICY, base=other).publish(model, 1)
    publisher = Publisher(scene.registry, POLICY, base="org/tiny")
    first = publisher.publish(model, 1).version
    shutil.rmtree(scene.folder / "base")
    learn(model)
    second = publisher.publish(model, 2).version
    assert first.base_id == second.base_id == scene.registry.bases.get("org/tiny").id


def test_impossible_options_are_reported_immediately(scene: Scene, model: Any) -> None:
    engine = Vllm(EngineClient(scene.engine("vllm").url))
    for options in ({"window": 0}, {"engines": [engine]}):
        with pytest.raises(Invalid):
            Publisher(scene.registry, POLICY, **options)
    publisher = Publisher(scene.registry, POLICY)
    with pytest.raises(NotFound, match="was published yet"):
        publisher.drain()
    with pytest.raises(NotFound, match="no adapter 'other'"):
        publisher.publish(model, 1, adapter="other")
    with torch.no_grad():
        next(value for name, value in model.named_parameters() if "lora_A" in name).fill_(torch.nan)
    with pytest.raises(CheckFailed, match="NaN"):
        publisher.publish(model, 1)


def test_a_policy_that_could_not_be_saved_is_published_by_the_next_try(scene: Scene, model: Any) -> None:
    publisher = Publisher(scene.registry, POLICY)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(Unavailable, match="cannot be written"):
            publisher.publish(model, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert publisher.publish(model, 1).version.number == 1


def test_an_engine_that_is_down_makes_no_version_fail(scene: Scene, model: Any, tmp_path: Path) -> None:
    fake = scene.engine("vllm")
    publisher = Publisher(
        scene.registry, POLICY, engines=[Vllm(EngineClient(fake.url))], cache=Cache(tmp_path / "cache")
    )
    fake.stop()
    with pytest.raises(Unavailable, match="does not answer"):
        publisher.publish(model, 1)
    fake.start()
    assert publisher.publish(model, 1).version.number == 1
    assert list(fake.names()) == ["acme/policy@1"]


def test_versions_held_by_an_engine_stay_cached_after_the_training_run(
    scene: Scene, model: Any, tmp_path: Path
) -> None:
    engine, cache = scene.engine("vllm"), Cache(tmp_path / "engines")
    publisher = Publisher(scene.registry, POLICY, engines=[Vllm(EngineClient(engine.url))], cache=cache)
    first = publisher.publish(model, 1).version
    learn(model)
    second = publisher.publish(model, 2).version
    publisher.drain(timeout=60)
    cache.close()
    assert [entry.digest for entry in Cache(tmp_path / "engines").shrink(0)] == [first.digest]
    assert second.digest.hex in engine.names()["acme/policy@2"]
