"""Measures the cost of loading an adapter, compared with safetensors and PEFT on the same file.

    python bench/load.py [--hidden 768] [--layers 12] [--rank 16] [--rounds 15]

Tensors: `adaptry.load` of a version that is not cached, of one that is, and of a folder, compared with
`safetensors.torch.load_file`; each then reads every byte, since a mapped file costs nothing until then. Into
a model: `adaptry.load` compared with `PeftModel.load_adapter`, with defaults and with `low_cpu_mem_usage`;
and in place of a loaded adapter, compared with PEFT's `hotswap_adapter` and with the limit, which reads the
file, copies it into the parameters, and checks nothing. The version is in an embedded registry, which knows
its base; the model was read from that base's files, so the two are compared each time. `first` is a version
that this process has not opened before. Rounds are interleaved; shown are the median, minimum and maximum,
and the processor time, since machines are busy.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from figures import note
from peft.utils.hotswap import hotswap_adapter
from safetensors.torch import load_file

import adaptry
from adaptry.bases.hf_folder import open_checkpoint
from adaptry.integrations.inprocess import fetch
from adaptry.integrations.serving import Cache
from adaptry.operations.base_registry import register_base

ROWS = {
    "load": ("adaptry.load(into=model)", "PeftModel.load_adapter"),
    "hotswap": ("adaptry.load(hotswap=True)", "read and copy: the limit"),
    "hotswap-peft": ("adaptry.load(hotswap=True)", "peft hotswap_adapter"),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--hidden", type=int, default=768)
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--rank", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=15)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as place:
        os.environ["ADAPTRY_HOME"] = place
        measure(Path(place), options.hidden, options.layers, options.rank, options.rounds)


def measure(place: Path, hidden: int, layers: int, rank: int, rounds: int) -> None:
    base(hidden, layers).save_pretrained(place / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "base")
    folder = trained(place / "adapter", model, rank)
    registry = adaptry.connect(str(place / "registry"))
    register_base(registry, open_checkpoint(place / "base"), ("org/bench",))
    adaptry.push(registry, adaptry.open_dir(folder), "acme/tone", base="org/bench")
    size = (folder / "adapter_model.safetensors").stat().st_size
    print(f"an adapter of {size / 1e6:.1f} MB, rank {rank}, {layers} layers of {hidden}")
    tensors(registry, folder, place, rounds)
    models(registry, folder, place, model, rounds)


def tensors(registry: adaptry.registry.interface.Registry, folder: Path, place: Path, rounds: int) -> None:
    cache = Cache(place / "warm")
    peer = timed(lambda: touched(load_file(folder / "adapter_model.safetensors")), rounds)
    show("safetensors.load_file", peer, peer)
    show("adaptry.load, a folder", timed(lambda: touched(adaptry.load(folder)), rounds), peer)
    warm = lambda: touched(adaptry.load("acme/tone", registry=registry, cache=cache))  # noqa: E731
    warm()
    show("adaptry.load, in the cache", timed(warm, rounds), peer)

    def cold() -> None:
        touched(adaptry.load("acme/tone", registry=registry, cache=Cache(place / "cold")))

    show("adaptry.load, in no cache", timed(cold, rounds, lambda: shutil.rmtree(place / "cold", True)), peer)


def models(registry: Any, folder: Path, place: Path, model: Any, rounds: int) -> None:
    """(`Any`: transformers is not typed.)"""
    cache = Cache(place / "warm")
    wrapped = peft.PeftModel.from_pretrained(model, folder, adapter_name="first")
    parameters = dict(wrapped.named_parameters())

    def drop() -> None:
        if "second" in wrapped.peft_config:
            wrapped.delete_adapter("second")

    def load(**options: Any) -> None:
        adaptry.load("acme/tone", registry=registry, cache=cache, into=wrapped, **options)

    @torch.no_grad()
    def copy() -> None:
        for name, value in load_file(folder / "adapter_model.safetensors").items():
            parameters[name.replace(".weight", ".first.weight")].copy_(value)

    loading = {
        "PeftModel.load_adapter": lambda: wrapped.load_adapter(str(folder), "second"),
        "  with low_cpu_mem_usage": lambda: wrapped.load_adapter(
            str(folder), "second", low_cpu_mem_usage=True
        ),
        "adaptry.load(into=model)": lambda: load(name="second"),
    }
    swapping = {
        "read and copy: the limit": copy,
        "peft hotswap_adapter": lambda: hotswap_adapter(wrapped, str(folder), "first", torch_device="cpu"),
        "adaptry.load(hotswap=True)": lambda: load(name="first", hotswap=True),
        "  of a folder": lambda: adaptry.load(folder, into=wrapped, name="first", hotswap=True),
    }

    def load_first() -> None:
        fetch._open_cached.cache_clear()
        load(name="second")

    def swap_first() -> None:
        fetch._open_cached.cache_clear()
        load(name="first", hotswap=True)

    loading["  first"] = load_first
    swapping["  first"] = swap_first
    compare(loading, rounds, drop)
    compare(swapping, rounds)


def compare(
    works: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> None:
    """Times the functions alternately; ratios are relative to the first."""
    walls: dict[str, list[float]] = {name: [] for name in works}
    busy: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            before()
            start, used = time.perf_counter(), time.process_time()
            work()
            if number:  # the first round warms up
                walls[name].append(time.perf_counter() - start)
                busy[name].append(time.process_time() - used)
    before()
    first = next(iter(works))
    for row, (name, peer) in ROWS.items():
        if name in walls:
            note(row, walls[name], walls[peer])
    for name, taken in walls.items():
        ratio = statistics.median(one / other for one, other in zip(taken, walls[first], strict=True))
        milliseconds = " ".join(
            f"{value * 1000:8.1f}" for value in (statistics.median(taken), min(taken), max(taken))
        )
        print(
            f"{name:<30} {milliseconds} ms, {statistics.median(busy[name]) * 1000:7.1f} ms CPU {ratio:6.2f} x"
        )


def base(hidden: int, layers: int) -> Any:
    """(`Any`: transformers is not typed.)"""
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers, num_attention_heads=8,
            num_key_value_heads=8, vocab_size=1000,
        )
    )  # fmt: skip


def trained(folder: Path, model: Any, rank: int) -> Path:
    """(`Any`: transformers is not typed.) The model is as it was."""
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=rank, target_modules="all-linear"))
    for name, value in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.02)
    wrapped.save_pretrained(folder)
    wrapped.unload()
    return folder


def touched(found: Mapping[str, torch.Tensor]) -> None:
    for tensor in found.values():
        tensor.sum()


def timed(work: Callable[[], object], rounds: int, before: Callable[[], object] = lambda: None) -> float:
    """The median, in seconds."""
    taken = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    before()
    return statistics.median(taken)


def show(what: str, seconds: float, peer: float) -> None:
    print(f"{what:<30} {seconds * 1000:9.1f} ms   {seconds / peer:6.2f} x")


if __name__ == "__main__":
    main()
