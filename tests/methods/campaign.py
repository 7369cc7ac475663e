"""Randomly generated adapters, with PEFT as the reference for both the findings and the merge.

    .venv/bin/python -m tests.methods.campaign --first-seed 30000 --seeds 1000

Each case is an adapter that PEFT saved, or a LoRA of experts as saved before transformers 5, with up to two
random mutations. A case is right if we accept it and merge to PEFT's weights, or if we block it and PEFT
raises an error, drops tensors or initialises missing ones. The exit code is 1 if a case is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from adaptry.adapters.inspection.inspector import Inspector

from . import experts
from .corpus import NotByPeft, cases, make
from .families import FAMILIES, Family
from .mutations import MUTATIONS, Files
from .peft_comparison import ask_peft, ask_us, verdict, write
from .trainer_edits import TRAINER_EDITS

ALL = list(cases(dtypes=["fp32"]))
COMMON = [case for case in ALL if case.method in ("lora", "ia3", "loha")]


@dataclass(frozen=True)
class Generated:
    """`label`: the case and the changes of its files."""

    family: Family
    base: Path
    files: Files
    label: str


@dataclass(frozen=True)
class Judged:
    """`wrong` describes the error in our answer, or is empty. `answer` is the answer in one word, and
    `is_idle` whether PEFT loads the adapter and changes nothing.
    """

    seed: int
    label: str
    answer: str
    is_idle: bool
    wrong: str

    def __str__(self) -> str:
        return f"{self.seed}: {self.label}: {self.wrong}"


def generated(seed: int, corpus: Path) -> Generated | None:
    """The case of this seed; None if PEFT cannot make such an adapter."""
    source = random.Random(seed)
    found = _of_experts(source, corpus) if source.random() < 0.1 else _saved_by_peft(source, corpus)
    if found is None:
        return None
    done = []
    for _ in range(source.choice([0, 1, 1, 1, 1, 2])):
        edits = MUTATIONS if source.random() < 0.6 else TRAINER_EDITS
        done += filter(None, [source.choice(edits)(source, found.files)])
    label = f"{found.label} with {'; '.join(done) or 'nothing'}"
    return Generated(found.family, found.base, found.files, label) if found.files.tensors else None


def _saved_by_peft(source: random.Random, corpus: Path) -> Generated | None:
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
    return Generated(FAMILIES[case.family], made.base, files, str(case))


def _of_experts(source: random.Random, corpus: Path) -> Generated:
    name = source.choice(sorted(experts.FAMILIES))
    family, base = experts.FAMILIES[name], corpus / f"experts-{name}"
    if not base.exists():
        family.save(base, torch.float32)
    return Generated(family, base, experts.random_lora(source, base), f"experts of {name}")


def judge(seeds: Iterable[int], folder: Path, corpus: Path) -> Iterator[Judged]:
    """Judges the cases of these seeds, except those that PEFT cannot make."""
    torch.set_num_threads(1)
    with closing(Inspector()) as inspector:
        for seed in seeds:
            made = generated(seed, corpus)
            if made is not None:
                yield _judged(seed, made, folder, inspector)


def _judged(seed: int, made: Generated, folder: Path, inspector: Inspector) -> Judged:
    adapter = write(folder / f"adapter-{seed}", made.files.tensors, made.files.config)
    theirs = ask_peft(made.family, made.base, adapter)
    ours = ask_us(made.base, adapter, folder / f"merged-{seed}", inspector)
    answer = "blocked" if ours.blocked else "not merged" if ours.refusal else "merged"
    wrong = verdict(made.family, theirs, ours) or ""
    # Methods that cannot be merged (X-LoRA) have an effect only in the live model.
    is_idle = theirs.changes_nothing and not theirs.error and not ours.is_unsupported
    return Judged(seed, made.label, answer, is_idle, wrong)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.methods.campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds (default 1,000)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default 0)")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
        for one in judge(seeds, Path(name), Path(name) / "corpus"):
            is_fine = one.answer != "blocked"
            counts.update(["judged", one.answer])
            counts["PEFT changes nothing"] += one.is_idle
            counts["PEFT changes nothing and we say fine"] += one.is_idle and is_fine
            if one.wrong:
                counts["wrong"] += 1
                sys.stdout.write(f"{one}\n")
                sys.stdout.flush()
    told = ", ".join(f"{kind}: {count:,}" for kind, count in counts.items())
    sys.stdout.write(f"seeds {seeds.start}–{seeds.stop - 1}: {told}\n")
    sys.exit(1 if counts["wrong"] else 0)


if __name__ == "__main__":
    main()
