"""Randomly generated adapters on many architectures, with PEFT's unmerged model as the reference.

    .venv/bin/python -m tests.methods.live_campaign --first-seed 1000 --seeds 300

Each case is an adapter that PEFT saved on a tiny model of `zoo.KINDS`, with up to two random mutations. A
case is wrong if PEFT raises an error or drops tensors and nothing is reported; if our merged model answers
differently than the unmerged one and no finding reports this; or if we block an adapter that PEFT loads
completely. The exit code is 1 if a case is wrong.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import load_file
from torch import nn

from . import zoo
from .mutations import MUTATIONS, Files
from .peft_comparison import FOREIGN, ByUs, ask_us, is_harmless, says_the_value_is_odd, write
from .trainer_edits import TRAINER_EDITS
from .user_edits import USER_EDITS
from .variants import VARIANTS

_TELLING = ("merge_differs", "modules_bypassed", "saved_copy_unused", "tied_embeddings", "layers_random")
"""Findings that say why a merge may answer otherwise than the unmerged model."""
_TYPES = {kind.value.lower() for kind in peft.PeftType}
_METHODS = sorted(name for name in _TYPES & VARIANTS.keys() if VARIANTS[name][0].targets)


@dataclass(frozen=True)
class Live:
    """PEFT's answer. `before` and `after`: the model's outputs without and with the unmerged adapter; None if
    it raises an error when it is called. `dropped` and `missing`: names of tensors.
    """

    error: str = ""
    before: torch.Tensor | None = None
    after: torch.Tensor | None = None
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wrong:
    """`kind`: refused (PEFT raises an error), dropped, merged (to other answers) or blocked (wrongly)."""

    seed: int
    kind: str
    label: str
    reason: str

    def __str__(self) -> str:
        return f"{self.seed} [{self.kind}] {self.label}: {self.reason[:400]}"


def judge(seeds: Iterable[int], folder: Path, corpus: Path) -> Iterator[Wrong | None]:
    """The error in the case of each seed, None if there is none; cases that PEFT cannot make are skipped."""
    torch.set_num_threads(1)
    for seed in seeds:
        with warnings.catch_warnings(action="ignore"):
            made = _generated(random.Random(seed), corpus)
            if made is None:
                continue
            kind, files, label = made
            adapter = write(folder / f"adapter-{seed}", files.tensors, files.config)
            theirs = ask_live_peft(kind, corpus / kind, adapter)
            ours = ask_us(corpus / kind, adapter, folder / f"merged-{seed}")
            found = verdict_of_live(kind, corpus / kind, adapter, theirs, ours)
        if ours.folder is not None:
            shutil.rmtree(ours.folder, ignore_errors=True)
        yield None if found is None else Wrong(seed, found[0], label, found[1])


def _generated(source: random.Random, corpus: Path) -> tuple[str, Files, str] | None:
    kind = source.choice(zoo.KINDS)
    base = zoo.save(kind, corpus / kind)
    method = "lora" if source.random() < 0.4 else source.choice(_METHODS)
    model = zoo.load(kind, base)
    try:
        config = _config(source, model, method)
        torch.manual_seed(1)
        adapted = peft.get_peft_model(model, config)
        with torch.no_grad():
            for parameter in adapted.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape) * 0.2
        with tempfile.TemporaryDirectory() as name:
            adapted.save_pretrained(name)
            file = Path(name) / "adapter_model.safetensors"
            written = json.loads((Path(name) / "adapter_config.json").read_text())
            files = Files(load_file(file), written, load_file(base / "model.safetensors"))
    except Exception:  # noqa: BLE001  (PEFT does not make it)
        return None
    done: list[str] = []
    for _ in range(source.choice([0, 0, 1, 1, 1, 2]) if files.tensors else 0):
        edits = source.choice((MUTATIONS, USER_EDITS, TRAINER_EDITS, TRAINER_EDITS))
        edit = source.choice(edits)
        done += filter(None, [edit(source, files) if files.tensors else None])
    label = f"{kind} {method} of {config.target_modules} with {'; '.join(done) or 'nothing'}"
    return (kind, files, label) if files.tensors else None


def _config(source: random.Random, model: Any, method: str) -> Any:
    """(`Any`: transformers and PEFT are not typed.)"""
    fields = dict(source.choice(VARIANTS[method]).fields)
    fields = {key: value for key, value in fields.items() if not key.startswith(("target_", "modules_to"))}
    names: dict[str, list[str]] = {}
    for path, module in model.named_modules():
        for label, kinds in (("matrix", nn.Linear), ("table", nn.Embedding), ("image", nn.Conv2d)):
            if isinstance(module, kinds):
                names.setdefault(label, []).append(path.rpartition(".")[2])
    matrices = sorted({name for name in names.get("matrix", []) if not name.isdecimal()})
    targets: Any = source.sample(matrices, min(len(matrices), source.randint(1, 3)))
    others = sorted({*names.get("table", []), *names.get("image", [])})
    if others and source.random() < 0.2:
        targets = [*targets, source.choice(others)]
    if method == "lora" and source.random() < 0.2:
        targets = "all-linear"
    if method == "lora" and source.random() < 0.25:
        fields["modules_to_save"] = [source.choice([path for path, _ in model.named_modules() if path])]
    kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[peft.PeftType(method.upper())]
    return kind(target_modules=targets, **fields)


def ask_live_peft(kind: str, base: Path, adapter: Path) -> Live:
    model = zoo.load(kind, base)
    before = _outputs(model)
    try:
        live = peft.PeftModel.from_pretrained(model, adapter).eval()
        tensors = load_file(adapter / "adapter_model.safetensors")
        loaded = peft.set_peft_model_state_dict(live, dict(tensors))
        is_listed = bool(getattr(live.peft_config["default"], "modules_to_save", None))
    except Exception as error:  # noqa: BLE001  (whatever PEFT raises is its answer)
        return Live(f"{type(error).__name__}: {error}")
    prefix = getattr(live.base_model, "prefix", "\0")
    dropped = (name for name in loaded.unexpected_keys if not is_harmless(name, tensors, is_listed))
    missing = tuple(name for name in loaded.missing_keys if prefix in name)
    return Live("", before, _outputs(live), tuple(dropped), missing)


def _outputs(model: Any) -> torch.Tensor | None:
    inner = model.get_base_model() if isinstance(model, peft.PeftModel) else model
    try:
        with torch.no_grad():
            found = model(**zoo.inputs(inner))
    except Exception:  # noqa: BLE001  (the model's answer)
        return None
    tensors = (value for value in found.values() if isinstance(value, torch.Tensor))
    return torch.cat([value.flatten().float() for value in tensors if value.is_floating_point()])


def verdict_of_live(kind: str, base: Path, adapter: Path, theirs: Live, ours: ByUs) -> tuple[str, str] | None:
    said = " ".join(ours.told)
    is_complete = not (theirs.error or theirs.dropped or theirs.missing)
    if ours.blocked:
        is_used = theirs.after is not None and not _is_close(theirs.after, theirs.before)
        is_wrong = is_complete and is_used and not says_the_value_is_odd(ours)
        return ("blocked", ours.blocked[0]) if is_wrong else None
    if "method_retired" in said or "module_renamed" in said or "vocabulary_resized" in said:
        return None  # reported, and neither merged nor known on such a base
    if theirs.error:
        return "refused", theirs.error
    if theirs.dropped:
        return "dropped", str(theirs.dropped[:3])
    if theirs.after is None:
        return None
    if ours.folder is None:
        is_nan = "infinite or NaN" in ours.refusal and not bool(theirs.after.isfinite().all())
        is_idle = "[untrained]" in ours.refusal and _is_close(theirs.after, theirs.before)
        is_told = ours.is_unsupported or any(code in said for code in FOREIGN) or is_nan or is_idle
        return None if is_told else ("blocked", f"it is fine, and not merged: {ours.refusal}")
    try:
        merged = _outputs(zoo.load(kind, ours.folder))
    except RuntimeError as error:  # sizes other than those in its config
        return "merged", f"transformers refuses the merged model: {error}; {said}"
    if _is_close(merged, theirs.after) or any(code in said for code in _TELLING):
        return None
    return "merged", said or "nothing was reported"


def _is_close(one: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if one is None or other is None or one.shape != other.shape:
        return False
    scale = max(1e-3, float(other.abs().nan_to_num(0, 1, 1).max()))
    return torch.allclose(one, other, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.methods.live_campaign", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="number of seeds (default 300)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them (default 0)")
    asked = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
        for wrong in judge(seeds, Path(name), Path(name) / "corpus"):
            counts["judged"] += 1
            if wrong is not None:
                counts[wrong.kind] += 1
                sys.stdout.write(f"{wrong}\n")
                sys.stdout.flush()
    sys.stdout.write(f"seeds {seeds.start}-{seeds.stop - 1}: {dict(counts)}\n")
    sys.exit(1 if len(counts) > 1 else 0)


if __name__ == "__main__":
    main()
