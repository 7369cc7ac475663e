"""Adapters that PEFT or an engine does not apply as their files say, and what the command line prints.

    .venv/bin/python -m tests.checks.findings_of_issue > docs/what-was-found.md

Each row is run in an empty folder with a small Llama (`base`), another with its shapes (`other`), and an
adapter of its query and value projections (`tone`), changed as the row says.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from adaptry.testing.samples import tiny_base, tiny_lora
from adaptry_cli.main import main as cli

PREFIX = "base_model.model."
CHECK = "check ./tone --base ./base"
Tensors = dict[str, torch.Tensor]
Change = Callable[[Tensors, dict[str, Any]], None]


@dataclass(frozen=True)
class Row:
    """`number` is that of the finding in the issue. `exits`: the exit code of each of the commands."""

    number: int
    what: str
    change: Change
    commands: tuple[str, ...] = (CHECK,)
    exits: tuple[int, ...] = (1,)
    prepare: Callable[[], object] = lambda: None


def renamed(old: str, new: str) -> Change:
    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[re.sub(old, new, name, count=1)] = tensors.pop(name)

    return change


def fields(**values: Any) -> Change:
    return lambda tensors, config: config.update(values)


def without(key: str) -> Change:
    return lambda tensors, config: config.pop(key)


def extra(name: str, shape: tuple[int, ...] = (32, 16)) -> Change:
    return lambda tensors, config: tensors.update({name: torch.ones(shape)})


def rows_of_tokens(indices: Any, count: int) -> Change:
    name = f"{PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"

    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        tensors[name] = torch.ones(count, 16)
        config["trainable_token_indices"] = indices

    return change


def cast(dtype: torch.dtype) -> Change:
    return lambda tensors, config: tensors.update({name: each.to(dtype) for name, each in tensors.items()})


def scaled(factor: float) -> Change:
    return lambda tensors, config: tensors.update({name: each * factor for name, each in tensors.items()})


def of_rank(rank: int) -> Change:
    def change(tensors: Tensors, config: dict[str, Any]) -> None:
        for name, value in list(tensors.items()):
            shape = (rank, value.shape[1]) if "lora_A" in name else (value.shape[0], rank)
            tensors[name] = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        config["r"] = rank

    return change


def unchanged(tensors: Tensors, config: dict[str, Any]) -> None:
    """As PEFT wrote it."""


def with_tokenizers() -> None:
    """The base's, and for the adapter one with the reversed vocabulary."""
    words = [f"w{number}" for number in range(32)]
    for folder, listed in (("base", words), ("tone", words[::-1])):
        vocabulary = {word: number for number, word in enumerate(listed)}
        Tokenizer(WordLevel(vocabulary, unk_token="w0")).save(f"{folder}/tokenizer.json")


def in_mlx() -> None:
    """The same LoRA as MLX writes it, whose factors are transposed."""
    tensors = load_file("tone/adapter_model.safetensors")
    theirs = {
        re.sub(
            r"lora_([AB])\.weight", lambda found: f"lora_{found[1].lower()}", name.removeprefix(PREFIX)
        ): each
        for name, each in tensors.items()
    }
    Path("mlx").mkdir()
    save_file({name: each.T.contiguous() for name, each in theirs.items()}, "mlx/adapters.safetensors")
    config = {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0},
    }
    Path("mlx/adapter_config.json").write_text(json.dumps(config))


def cut_off() -> None:
    path = Path("tone/adapter_model.safetensors")
    path.write_bytes(path.read_bytes()[:-5])


_REPAIR = (CHECK, "export ./tone --for peft --base ./base -o ./repaired", "check ./repaired --base ./base")
_MERGED = "merge ./tone --base ./base -o ./merged"
_ENGINES = "check ./tone --base ./base --runtime"
ROWS = (
    *(
        Row(1, what, renamed(old, new), _REPAIR, (1, 0, 0))
        for what, old, new in (
            ("`foo` in front", r"model\.layers", "foo.model.layers"),
            ("without `model`", r"model\.model\.layers", "model.layers"),
            ("names of a vision model", r"model\.layers", "model.language_model.layers"),
            ("`_orig_mod`, of torch.compile", r"model\.layers", "_orig_mod.model.layers"),
            ("`policy.llm`, of a trainer", r"model\.layers", "policy.llm.model.layers"),
            ("`lora_A.foo.weight`", r"(lora_[AB])", r"\1.foo"),
        )
    ),
    Row(
        2,
        "`lm_head.base_layer.weight` beside it",
        extra(f"{PREFIX}lm_head.base_layer.weight"),
        (CHECK, _MERGED),
        (1, 1),
    ),
    Row(
        2,
        "`lm_head.weight` beside it: PEFT loads it, and a merge has it",
        extra(f"{PREFIX}lm_head.weight"),
        exits=(0,),
    ),
    *(
        Row(3, f"`target_modules` {value}", fields(target_modules=value), (CHECK, _MERGED), (1, 1))
        for value in (["q_proj"], [], ["foo"])
    ),
    Row(3, '`exclude_modules` ["v_proj"]', fields(exclude_modules=["v_proj"])),
    Row(3, "no `target_modules` (PEFT's default has both)", without("target_modules"), exits=(0,)),
    Row(4, "two indices, one row", rows_of_tokens([1, 2], 1)),
    Row(4, "a row twice", rows_of_tokens([1, 1], 2)),
    Row(4, "a negative row", rows_of_tokens([1, -2], 2)),
    Row(4, "a row beyond the vocabulary", rows_of_tokens([1, 999], 2)),
    Row(4, "as PEFT writes it", rows_of_tokens([1, 2], 2), exits=(0,)),
    Row(5, "`lora_alpha` 1e38, merged in float16", fields(lora_alpha=1e38), (f"{_MERGED} --dtype float16",)),
    Row(5, "factors × 1e30", scaled(1e30), (_MERGED,)),
    *(
        Row(6, f"`{key}: {json.dumps(value)}`", fields(**{key: value}))
        for key, value in (
            ("lora_bias", True),
            ("trainable_token_indices", [1]),
            ("peft_type", "lora"),
            ("lora_alpha", None),
            ("use_dora", True),
            ("r", "4"),
            ("rank_pattern", None),
            ("bias", "foo"),
            ("eva_config", 1),
            ("lora_alpha", 1e-40),
            ("init_lora_weights", "foo"),
            ("modules_to_save", "lm_head"),
        )
    ),
    Row(6, "factors in float64", cast(torch.float64), (CHECK, _MERGED), (0, 0)),
    Row(6, "factors in float8", cast(torch.float8_e4m3fn), (CHECK, _MERGED), (0, 0)),
    Row(
        7,
        "another base of the same shapes",
        unchanged,
        (
            "push ./tone acme/tone --base ./base",
            "check acme/tone --base ./other",
            "check acme/tone --base ./other --other-base",
        ),
        (0, 1, 0),
        lambda: CliRunner().invoke(cli, ["base", "add", "./base", "--name", "org/tiny"]),
    ),
    Row(8, "a reversed vocabulary", unchanged, prepare=with_tokenizers),
    Row(
        9,
        "`lora_B` of one layer zero: what a merge changed",
        lambda tensors, config: tensors.update(
            {name: each * 0 for name, each in tensors.items() if "layers.0" in name and "lora_B" in name}
        ),
        (_MERGED,),
        (0,),
    ),
    Row(
        9,
        "`parent_library` `__main__`",
        fields(auto_mapping={"parent_library": "__main__", "base_model_class": "Net"}),
        exits=(0,),
    ),
    Row(
        9,
        "`layer_replication` and a wrong name",
        lambda tensors, config: (
            renamed("q_proj", "Q_proj")(tensors, config),
            config.update(layer_replication=[[0, 2], [0, 2]]),
        ),
    ),
    Row(9, "a file that was cut off", unchanged, ("check ./tone",), (1,), cut_off),
    Row(
        10,
        "rank 12 for a server with `max_lora_rank=8`",
        of_rank(12),
        ("export ./tone --for vllm,max_lora_rank=8 --base ./base -o ./served",),
    ),
    Row(11, "`lora_A.default.weight`, vLLM", renamed("(lora_[AB])", r"\1.default"), (f"{_ENGINES} vllm",)),
    Row(
        11,
        "`bias` `lora_only` without biases, llama.cpp",
        fields(bias="lora_only"),
        (f"{_ENGINES} llama.cpp",),
        (0,),
    ),
    Row(11, "no `target_modules`, vLLM", fields(target_modules=None), (f"{_ENGINES} vllm",), (0,)),
    Row(
        11,
        "`modules_to_save` without tensors, mistral.rs",
        fields(modules_to_save=["lm_head"]),
        (f"{_ENGINES} mistral.rs",),
    ),
    Row(11, "float64, mistral.rs", cast(torch.float64), (f"{_ENGINES} mistral.rs",)),
    Row(11, "`exclude_modules`, mistral.rs", fields(exclude_modules=["v_proj"]), (f"{_ENGINES} mistral.rs",)),
    Row(
        11,
        "a layer that the base lacks, llama.cpp",
        renamed(r"layers\.1", "layers.7"),
        (f"{_ENGINES} llama.cpp",),
    ),
    Row(
        12,
        "a LoRA of MLX",
        unchanged,
        (
            "convert ./mlx --base ./base -o ./peft",
            "check ./peft --base ./base",
            "merge ./mlx --base ./base -o ./merged",
        ),
        (0, 0, 0),
        in_mlx,
    ),
    Row(12, "PEFT's own rounding", unchanged, (f"{_MERGED} --rounding peft",), (0,)),
)


@dataclass(frozen=True)
class Ran:
    """A command, its exit code, and the line that says most."""

    command: str
    code: int
    line: str


def run(row: Row) -> list[Ran]:
    """In an empty folder of its own."""
    with tempfile.TemporaryDirectory() as name, _inside(Path(name)):
        tiny_base(Path("base"))
        tiny_base(Path("other"), seed=7)
        folder = tiny_lora(Path("tone"))
        tensors = load_file(folder / "adapter_model.safetensors")
        config = json.loads((folder / "adapter_config.json").read_text())
        row.change(tensors, config)
        save_file(
            {key: value.contiguous() for key, value in tensors.items()}, folder / "adapter_model.safetensors"
        )
        (folder / "adapter_config.json").write_text(json.dumps(config))
        row.prepare()
        return [_answer(command) for command in row.commands]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.environ["ADAPTRY_REGISTRY"] = str(folder / "registry")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        shutil.rmtree(folder / "registry", ignore_errors=True)


def _answer(command: str) -> Ran:
    result = CliRunner().invoke(cli, command.split())
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"blocks|error|refused|not as|fine|changed|Error", line)]
    line = (telling or lines or [str(result.exception)])[0]
    return Ran(command, result.exit_code, re.sub(r"/tmp/\S+?/", "", line).replace("|", "\\|")[:220])


def main() -> None:
    sys.stdout.write(
        "# What was found\n\n"
        "PEFT or an engine does not apply most of these adapters as their files say. Each is a small LoRA,\n"
        "changed as described. Exit codes, and the first telling line of each answer, are from a run of\n"
        "`python -m tests.checks.findings_of_issue > docs/what-was-found.md`; a test compares the codes.\n\n"
        "| | adapter | command | exit code | answer |\n|---|---|---|---|---|\n"
    )
    wrong = []
    for row in ROWS:
        answers = run(row)
        for ran in answers:
            sys.stdout.write(
                f"| {row.number} | {row.what} | `adaptry {ran.command}` | {ran.code} | {ran.line} |\n"
            )
        if tuple(ran.code for ran in answers) != row.exits:
            wrong.append(row)
            sys.stderr.write(f"{row.number} {row.what}: {[ran.code for ran in answers]}, not {row.exits}\n")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
