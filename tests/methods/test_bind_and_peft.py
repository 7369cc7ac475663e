"""What we say of an adapter on a base is what PEFT does with it, over adapters that nobody picked.

Each case is an adapter that PEFT saved, changed at random by up to two mutations. PEFT loads the folder and
merges it; we check it and merge it. A case is right where we say that it is fine and merge to PEFT's weights,
or where we block it and PEFT raises, drops tensors or fills some in.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from safetensors.torch import load_file

from .corpus import Case, NotByPeft, cases, make
from .families import FAMILIES
from .judging import ask_peft, ask_us, verdict, write
from .mutations import MUTATIONS, Files

ALL = list(cases(dtypes=["fp32"]))
COMMON = [case for case in ALL if case.method in ("lora", "ia3", "loha")]
IN_A_BATCH = 50


def generated(source: random.Random, corpus: Path) -> tuple[Case, Path, Files, str] | None:
    """A case, its base, its files changed, and what was done; None where PEFT makes no such adapter."""
    case = source.choice(COMMON if source.random() < 0.5 else ALL)
    try:
        made = make(case, corpus)
    except (NotByPeft, ImportError):
        return None
    files = Files(
        load_file(made.adapter / "adapter_model.safetensors"),
        json.loads((made.adapter / "adapter_config.json").read_text()),
        load_file(made.base / "model.safetensors"),
    )
    done = []
    for _ in range(source.choice([0, 1, 1, 1, 1, 2])):
        done += filter(None, [source.choice(MUTATIONS)(source, files)])
    return (case, made.base, files, "; ".join(done)) if files.tensors else None


def wrong_in_batch(batch: int, folder: Path, corpus: Path) -> list[str]:
    """What is wrong in one batch of cases, each in a line that says how to make it again."""
    torch.set_num_threads(1)
    wrong = []
    for number in range(batch * IN_A_BATCH, (batch + 1) * IN_A_BATCH):
        made = generated(random.Random(number), corpus)
        if made is None:
            continue
        case, base, files, done = made
        adapter = write(folder / f"adapter-{number}", files.tensors, files.config)
        theirs = ask_peft(FAMILIES[case.family], base, adapter)
        ours = ask_us(base, adapter, folder / f"merged-{number}")
        if (said := verdict(FAMILIES[case.family], theirs, ours)) is not None:
            wrong.append(f"{number}: {case} with {done or 'nothing'}: {said}")
    return wrong


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus")


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(8))
def test_what_we_say_is_what_peft_does(batch: int, tmp_path: Path, corpus: Path) -> None:
    assert wrong_in_batch(batch, tmp_path, corpus) == []


@pytest.mark.heavy
@pytest.mark.parametrize("batch", range(8, 120))
def test_what_we_say_is_what_peft_does_in_a_campaign(batch: int, tmp_path: Path, corpus: Path) -> None:
    assert wrong_in_batch(batch, tmp_path, corpus) == []
