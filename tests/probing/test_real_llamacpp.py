"""Probes of the real llama.cpp: with the exported file, with one that changes nothing, and with one of
another scale.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="the base is written by gguf: pip install gguf")
pytest.importorskip("xllamacpp", reason="llama.cpp is not installed: pip install xllamacpp")
pytest.importorskip("peft", reason="PEFT is the reference of a probe: pip install 'adaptry[probe]'")

from click.testing import CliRunner
from gguf import MODEL_ARCH
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from adaptry_cli.main import main

from ..exporting.llamacpp import write_base
from ..vllm import models

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for both, an adapter, and three files of it for llama.cpp."""
    folder = tmp_path_factory.mktemp("place")
    base = models.model(folder / "base")
    words = AutoTokenizer.from_pretrained(base)
    letters = words.convert_ids_to_tokens(range(len(words)))
    model = AutoModelForCausalLM.from_pretrained(base)
    interleaved = {"q_proj.weight": 2, "k_proj.weight": 2}
    write_base(model, MODEL_ARCH.LLAMA, folder / "base.gguf", interleaved, letters=letters)
    tone = models.adapter(folder / "tone", config={"use_rslora": True})
    weaker = models.adapter(folder / "weaker")  # the same weights, without rsLoRA: half as strong at rank 4
    idle = models.adapter(folder / "idle", config={"use_rslora": True})
    weights = idle / "adapter_model.safetensors"
    save_file(
        {name: value * ("lora_A" in name) for name, value in load_file(weights).items()},
        weights,
        {"format": "pt"},
    )
    for one in (tone, weaker, idle):
        words_said = [
            "export",
            str(one),
            "--for",
            "llama.cpp",
            "--base",
            str(base),
            "-o",
            str(folder / f"{one.name}.out"),
        ]
        exported = CliRunner().invoke(main, words_said)
        assert exported.exit_code == 0, exported.output
    return folder


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(place / "base.gguf")
    params.n_ctx, params.n_parallel, params.port, params.n_gpu_layers = 128, 1, 0, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup, params.verbosity = False, -1
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(place / f"{name}.out" / "adapter.gguf"), 0.0)
        for name in ("tone", "weaker", "idle")
    ]
    server = xllamacpp.Server(params)
    yield server.listening_address
    del server


@pytest.mark.parametrize(
    ("given", "outcome"), [("tone", "as_trained"), ("weaker", "differs"), ("idle", "no_op")]
)
def test_llamacpps_answers_reveal_the_loaded_adapter(
    place: Path, address: str, given: str, outcome: str
) -> None:
    words = ["probe", str(place / "tone"), "--engine", address, "--base", str(place / "base")]

    found = CliRunner().invoke(main, [*words, "--model", f"{given}.out", "--json"])

    assert found.exit_code == (0 if outcome == "as_trained" else 1), found.output
    assert json.loads(found.stdout)["outcome"] == outcome
