"""A head's bias that is tied to another and not stored, in a model of an encoder and a decoder."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import peft
from tests.checks.peft_oracle import save_trained
from tests.methods import zoo
from tests.methods.live_campaign import ask_live_peft, verdict_of_live
from tests.methods.peft_comparison import ask_us

KIND = "vision-encoder-decoder"


@pytest.mark.slow
def test_the_bias_of_a_decoders_tied_head_is_accepted_and_merged_as_in_the_live_model(tmp_path: Path) -> None:
    """PEFT saves it for `bias="all"`, and transformers ties it to `cls.predictions.bias`."""
    base = zoo.save(KIND, tmp_path / KIND)
    config = peft.LoraConfig(r=4, target_modules=["key"], bias="all")
    save_trained(zoo.load(KIND, base), config, tmp_path / "tone")

    ours = ask_us(base, tmp_path / "tone", tmp_path / "merged")

    assert not ours.blocked and not ours.refusal
    theirs = ask_live_peft(KIND, base, tmp_path / "tone")
    assert verdict_of_live(KIND, base, tmp_path / "tone", theirs, ours) is None
