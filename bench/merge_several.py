"""Measures the cost of merging several adapters at once, compared with PEFT and with copying the files.

    python bench/merge_several.py [--folder .bench] [--layers 12] [--rounds 3] [--brief]

PEFT merges them in turn, in one process that loads the base once, and rounds after each; we sum in float32
and round once. So the results differ by roundings of bfloat16 (one is 4e-3 of a value). Shown are the number
of elements that differ, and the distance of the two results relative to the weights' norm. `ties` is not
compared with PEFT, which has no such merge. Times are of whole processes; ours flush to the disk.
`--brief`: one and eight LoRAs, without PEFT.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from figures import note
from generated import LINEAR, RANK, asked_of, generated
from merge import OURS, REPORTING, Contestant, run_once, size_of
from numpy.typing import NDArray

from adaptry.bases.hf_folder import HfCheckpoint, open_checkpoint

MAKE = """
import sys, torch
from peft import IA3Config, LoHaConfig, LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
base, folder, rank, targets = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
kinds = {f"lora-{n}": LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets) for n in range(8)}
kinds["ia3"] = IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
kinds["loha"] = LoHaConfig(r=rank // 4, alpha=rank // 4, target_modules=["q_proj", "v_proj"])
kinds["dora"] = LoraConfig(r=rank, lora_alpha=rank, target_modules=["q_proj", "v_proj"], use_dora=True)
for number, (name, config) in enumerate(kinds.items()):
    torch.manual_seed(number)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype="auto"), config)
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad and "magnitude" not in parameter_name:
            centre = 1.0 if "ia3" in parameter_name else 0.0
            torch.nn.init.normal_(parameter, centre, 0.01)
    model.save_pretrained(f"{folder}/{name}")
"""
PEFT = (
    REPORTING
    + """
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, *adapters, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
for adapter in adapters:
    model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
model.save_pretrained(out)
"""
)
LORAS = [f"lora-{number}" for number in range(8)]
CASES = {
    "one LoRA": (LORAS[:1], []),
    "two LoRAs": (LORAS[:2], []),
    "four LoRAs": (LORAS[:4], []),
    "eight LoRAs": (LORAS, []),
    "LoRA, IA3, LoHa, DoRA": (["lora-0", "ia3", "loha", "dora"], []),
    "four LoRAs, ties": (LORAS[:4], ["--method", "ties"]),
}
BRIEF = ("one LoRA", "eight LoRAs")


@dataclass(frozen=True)
class Near:
    """How near two checkpoints are: the share of elements that differ, and ‖difference‖ / ‖weights‖."""

    share: float
    distance: float


def main() -> None:
    asked = asked_of(__doc__, has_brief=True)
    base = generated(asked.folder, asked.layers).base.absolute()
    print(
        f"{size_of(base) / 1e9:.2f} GB of base, {os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
        made = Path(scratch) / "adapters"
        targets = ",".join(name.rpartition(".")[2] for name in LINEAR)
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MAKE, str(base), str(made), str(RANK), targets],
            check=True,
            capture_output=True,
        )
        measure(base, made, Path(scratch), asked.rounds, is_brief=asked.brief)
    print(f"load after {os.getloadavg()[0]:.1f}")


def measure(base: Path, made: Path, scratch: Path, rounds: int, *, is_brief: bool) -> None:
    cases = {name: CASES[name] for name in BRIEF} if is_brief else CASES
    copying = Contestant(["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(base)])
    ours = {
        name: Contestant(
            [
                *(sys.executable, "-c", OURS, "merge", "--base", str(base)),
                *(str(made / adapter) for adapter in adapters),
                *options,
                "-o",
            ]
        )
        for name, (adapters, options) in cases.items()
    }
    for _ in range(rounds):
        for contestant in (copying, *ours.values()):
            run_once(contestant, scratch / "out")
            shutil.rmtree(scratch / "out")
    note("merge-eight", ours["eight LoRAs"].seconds, ours["one LoRA"].seconds)
    flushed = median(copying.seconds)
    print(f"cp, flushed: {flushed:.2f} s")
    print(
        f"{'':<26}{'adaptry':>10}{'× cp':>8}{'MiB':>7}{'PEFT':>10}{'MiB':>7}{'PEFT / it':>11}  differing,"
        " distance"
    )
    for name, (adapters, options) in cases.items():
        words = [str(made / adapter) for adapter in adapters]
        peft = Contestant([sys.executable, "-c", PEFT, str(base), *words])
        near = None
        if not options and not is_brief:
            run_once(peft, scratch / "peft")
            run_once(Contestant(ours[name].command), scratch / "ours")
            near = nearness(open_checkpoint(scratch / "ours"), open_checkpoint(scratch / "peft"))
            shutil.rmtree(scratch / "peft")
            shutil.rmtree(scratch / "ours")
        print(line_of(name, ours[name], peft, near, flushed), flush=True)


def line_of(name: str, ours: Contestant, peft: Contestant, near: Near | None, flushed: float) -> str:
    wall = median(ours.seconds)
    line = f"{name:<26}{wall:>8.2f} s{wall / flushed:>8.2f}{ours.peak / 1024:>7.0f}"
    if near is None:
        return line
    beside = median(peft.seconds)
    return (
        f"{line}{beside:>8.2f} s{peft.peak / 1024:>7.0f}{beside / wall:>11.1f}"
        f"  {near.share:.4%}, {near.distance:.1e}"
    )


def nearness(found: HfCheckpoint, wanted: HfCheckpoint) -> Near:
    if found.tensors.keys() != wanted.tensors.keys():
        sys.exit("the merges do not have the same tensors")
    differing = total = 0
    apart = whole = 0.0
    for name, info in found.tensors.items():
        one, other = (
            np.memmap(each.path_of(name), "<u2", "r", each.tensors[name].start, (info.numel,))
            for each in (found, wanted)
        )
        differing += int(np.count_nonzero(one != other))
        total += info.numel
        apart += float(np.square(_values(one) - _values(other)).sum(dtype=np.float64))
        whole += float(np.square(_values(other)).sum(dtype=np.float64))
    return Near(differing / total, (apart / whole) ** 0.5)


def _values(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    return (bits.astype(np.uint32) << 16).view(np.float32)


if __name__ == "__main__":
    main()
