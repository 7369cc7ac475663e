"""Measures the cost of merging adapters of other methods, compared with a LoRA and with PEFT, in one run.

    python bench/merge_methods.py [--layers 12] [--rounds 3] [--methods dora,loha] [--no-peft]

Every contestant is a whole process that writes a fresh folder; rounds are interleaved, and a method's ratio
is the median of its ratios to the LoRA of the same round. On a busy machine the processor's time and the page
faults say more than the wall clock, so they are shown too. `differs` counts the elements that differ from
PEFT's merge.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from figures import note
from generated import LINEAR, RANK, generated
from merge import OURS, PEFT, QUIET, differences, size_of

from adaptry.bases.hf_folder import open_checkpoint

CONFIGS = {
    "lora": f"LoraConfig(r={RANK}, lora_alpha={2 * RANK}, target_modules=targets)",
    "dora": f"LoraConfig(r={RANK}, lora_alpha={2 * RANK}, target_modules=targets, use_dora=True)",
    "loha": f"LoHaConfig(r={RANK}, alpha={RANK}, target_modules=targets)",
    "lokr": f"LoKrConfig(r={RANK}, alpha={RANK}, target_modules=targets)",
    "adalora": f"AdaLoraConfig(init_r={RANK}, total_step=10, target_modules=targets)",
    "ia3": "IA3Config(target_modules=targets, feedforward_modules=['down_proj'])",
    "vera": "VeraConfig(r=64, target_modules=targets)",
    "vblora": "VBLoRAConfig(r=4, num_vectors=64, vector_length=256, target_modules=targets)",
    "hira": f"HiraConfig(r={RANK}, target_modules=targets)",
    "delora": f"DeloraConfig(r={RANK}, target_modules=targets)",
    "gralora": "GraloraConfig(r=32, target_modules=targets)",
    "miss": "MissConfig(r=64, target_modules=targets)",
    "shira": f"ShiraConfig(r={RANK}, target_modules=targets)",
    "supertuning": "SupertuningConfig(sparsity=0.99, target_modules=targets)",
    "saved": f"LoraConfig(r={RANK}, target_modules=targets, modules_to_save=['embed_tokens', 'norm'])",
    "embedding": f"LoraConfig(r={RANK}, target_modules=[*targets, 'embed_tokens', 'lm_head'])",
    "ln_tuning": "LNTuningConfig(target_modules=['input_layernorm', 'norm'])",
    "glora": "GloraConfig(r=4, target_modules=targets)",
    "c3a": "C3AConfig(block_size=256, target_modules=targets)",
    "fourierft": "FourierFTConfig(target_modules=targets)",
    "randlora": "RandLoraConfig(r=32, target_modules=targets)",
    "road": "RoadConfig(target_modules=targets)",
    "oft": "OFTConfig(oft_block_size=32, target_modules=targets)",
    "boft": "BOFTConfig(boft_block_size=32, target_modules=targets)",
    "hra": "HRAConfig(r=8, target_modules=targets)",
    "deft": "DeftConfig(r=8, target_modules=targets)",
    "peanut": "PeanutConfig(r=8, target_modules=targets)",
}
DEFAULT = "dora,loha,lokr,adalora,ia3,vera,hira"
ALL = "all"
MAKE = """
import json, sys, torch, peft
from peft import *
from transformers import AutoModelForCausalLM
base, targets, configs = sys.argv[1], sys.argv[2].split(","), json.loads(sys.argv[3])
for folder, config in configs.items():
    torch.manual_seed(0)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), eval(config))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point() and "magnitude" not in name:
            with torch.no_grad():
                parameter += (torch.randn(parameter.shape) * 0.01).to(parameter.dtype)
    model.save_pretrained(folder)
"""


@dataclass
class Runs:
    """The costs of one contestant's runs: seconds, processor seconds, page faults, and peak KiB."""

    command: list[str]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    system: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    peak: int = 0
    differing: str = ""

    def run(self, target: Path) -> None:
        """One run, after earlier writes have been flushed."""
        os.sync()
        reading, writing = os.pipe()
        home = {"ADAPTRY_HOME": str(target.parent / "home"), "REPORT_TO": str(writing)}
        environment = {**os.environ, **QUIET, **home}
        with tempfile.TemporaryFile() as errors:
            began = time.perf_counter()
            process = subprocess.Popen(
                [*self.command, str(target)],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[writing],
            )
            _, status, used = os.wait4(process.pid, 0)
            self.wall.append(time.perf_counter() - began)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                errors.seek(0)
                sys.exit(f"{' '.join(self.command)} failed:\n{errors.read().decode()}")
        self.cpu.append(used.ru_utime + used.ru_stime)
        self.system.append(used.ru_stime)
        self.faults.append(used.ru_minflt)
        os.close(writing)
        # Not `ru_maxrss`, which begins with the memory of this process, of which the child was a copy.
        self.peak = max(self.peak, int(os.read(reading, 64) or 0))
        os.close(reading)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path(".bench"))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", default=DEFAULT, help="all, or of: " + ", ".join(CONFIGS))
    parser.add_argument("--no-peft", action="store_true", help="compare with LoRA only")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    base = generated(asked.folder, asked.layers).base.absolute()
    chosen = CONFIGS if asked.methods == ALL else asked.methods.split(",")
    methods = ["lora", *(name for name in chosen if name != "lora")]
    adapters = _made(asked.folder.absolute(), base, asked.layers, methods)
    print(
        f"{size_of(base) / 1e9:.2f} GB of base, {asked.rounds} rounds, {os.cpu_count()} cores, "
        f"load before {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        ours, peft = measure(base, adapters, Path(scratch), asked.rounds, not asked.no_peft)
    show(ours, peft)
    for name in methods[1:]:
        note(f"merge-{name}", ours[name].wall, ours["lora"].wall)
    note("merge-methods-memory", [max(ours[name].peak for name in methods[1:]) * 1024])
    print(f"load after {os.getloadavg()[0]:.1f}")


def measure(
    base: Path, adapters: Mapping[str, Path], scratch: Path, rounds: int, with_peft: bool
) -> tuple[dict[str, Runs], dict[str, Runs]]:
    """Our runs and PEFT's by method. The last round's results are compared with PEFT's."""
    started = [sys.executable, "-c"]
    ours = {
        name: Runs([*started, OURS, "merge", "--base", str(base), str(adapter), "-o"])
        for name, adapter in adapters.items()
    }
    peft: dict[str, Runs] = {}
    for number in range(rounds):
        for name, runs in ours.items():
            runs.run(scratch / "ours")
            if with_peft and number == rounds - 1:
                peft[name] = Runs([*started, PEFT, str(base), str(adapters[name])])
                peft[name].run(scratch / "peft")
                found = differences(open_checkpoint(scratch / "ours"), open_checkpoint(scratch / "peft"))
                runs.differing = "{:,} of {:,}".format(*found)
                shutil.rmtree(scratch / "peft")
            shutil.rmtree(scratch / "ours")
    return ours, peft


def show(ours: Mapping[str, Runs], peft: Mapping[str, Runs]) -> None:
    titles = ("best", "median", "× LoRA", "least", "most", "CPU", "system", "faults", "peak MiB", "PEFT / it")
    print(f"{'':<12}" + "".join(f"{title:>10}" for title in titles) + "  differs from PEFT")
    for name, runs in ours.items():
        ratios = [one / other for one, other in zip(runs.wall, ours["lora"].wall, strict=True)]
        cells = (
            f"{min(runs.wall):.2f} s",
            f"{median(runs.wall):.2f} s",
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}",
            f"{max(ratios):.2f}",
            f"{median(runs.cpu):.2f} s",
            f"{median(runs.system):.2f} s",
            f"{median(runs.faults):,.0f}",
            f"{runs.peak / 1024:.0f}",
            f"{peft[name].wall[0] / median(runs.wall):.1f}" if name in peft else "",
        )
        print(f"{name:<12}" + "".join(f"{cell:>10}" for cell in cells) + f"  {runs.differing}")


def _made(folder: Path, base: Path, layers: int, methods: Sequence[str]) -> dict[str, Path]:
    """The adapters of these methods as PEFT writes them, made unless they are there."""
    found = {name: folder / f"{name}-{layers}" for name in methods}
    missing = {
        str(path): CONFIGS[name]
        for name, path in found.items()
        if not (path / "adapter_config.json").exists()
    }
    if missing:
        targets = ",".join(module.rpartition(".")[2] for module in LINEAR)
        command = [sys.executable, "-W", "ignore", "-c", MAKE, base, targets, json.dumps(missing)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, **QUIET})
    return found


if __name__ == "__main__":
    main()
