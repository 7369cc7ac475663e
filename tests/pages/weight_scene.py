"""Two versions with weights like those of a real training: late layers change more, and updates have low
rank.
"""

from __future__ import annotations

from pathlib import Path

import numpy

from adaptry.adapters.adapter import open_dir
from adaptry.core.refs import AdapterName
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobOrder
from adaptry.testing.runners import RunnerProcess
from adaptry.testing.samples import tiny_lora
from adaptry_api.testing import Server

TRANSLATOR = AdapterName.parse("acme/translator")
WEIGHTS = f"/-/compare?ref={TRANSLATOR}@1&ref={TRANSLATOR}@2"
_HIDDEN, _RANK = 64, 16
_MODULES = {
    "q_proj": "self_attn",
    "k_proj": "self_attn",
    "v_proj": "self_attn",
    "o_proj": "self_attn",
    "gate_proj": "mlp",
    "up_proj": "mlp",
    "down_proj": "mlp",
}


def push_translators(registry: Registry, folder: Path, layers: int = 16) -> None:
    """Version 1, and version 2, which is the same in its first layers and differs more in later ones."""
    for number in (1, 2):
        made = _translator(folder / f"translator-{number}", layers, number)
        push(registry, open_dir(made), TRANSLATOR)


def measure(server: Server) -> None:
    """Runs the job that the page offers."""
    versions = [f"{TRANSLATOR}@1", f"{TRANSLATOR}@2"]
    server.registry().jobs.submit(JobOrder(kind="weight-statistics", task={"versions": versions}))
    assert RunnerProcess(server.data, "--once").wait() == 0


def _translator(folder: Path, layers: int, number: int) -> Path:
    draw, other = numpy.random.default_rng(1), numpy.random.default_rng(number)
    extra = {}
    for layer in range(layers):
        for kind, (target, block) in enumerate(_MODULES.items()):
            sides = (2 * _HIDDEN, _HIDDEN) if target in ("gate_proj", "up_proj") else (_HIDDEN, _HIDDEN)
            out, into = (_HIDDEN, 2 * _HIDDEN) if target == "down_proj" else sides
            fall = numpy.exp(-numpy.arange(_RANK) / (2 + 0.4 * kind)) * (0.2 + (layer / layers) ** 2)
            up = draw.standard_normal((out, _RANK)) * fall
            down = draw.standard_normal((_RANK, into)) / 8
            up += other.standard_normal(up.shape) * fall * (number - 1) * layer / layers
            key = f"base_model.model.model.layers.{layer}.{block}.{target}"
            for name, factor in (("A", down), ("B", up)):
                extra[f"{key}.lora_{name}.weight"] = ("F32", factor.shape, factor.astype("<f4").tobytes())
    return tiny_lora(
        folder,
        hidden=_HIDDEN,
        layers=layers,
        rank=_RANK,
        targets=tuple(_MODULES),
        base_name="elsewhere/large-model",
        extra=extra,
    )
