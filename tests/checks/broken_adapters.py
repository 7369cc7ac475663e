"""Adapters that PEFT or an engine applies differently from training, and the output of the command line.

    .venv/bin/python -m tests.checks.broken_adapters > docs/broken-adapters.md

Each row is run in an empty folder with a small Llama (`base`), another base of the same shapes (`other`), and
an adapter of the query and value projections of `base` (`tone`), changed as the row states.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
    """An adapter, changed as `what` describes. `exits`: the exit code of each command."""

    heading: str
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
    """Leaves the adapter as PEFT wrote it."""


def with_tokenizers() -> None:
    """Adds a tokenizer to the base, and one with the reversed vocabulary to the adapter."""
    words = [f"w{number}" for number in range(32)]
    for folder, listed in (("base", words), ("tone", words[::-1])):
        vocabulary = {word: number for number, word in enumerate(listed)}
        Tokenizer(WordLevel(vocabulary, unk_token="w0")).save(f"{folder}/tokenizer.json")


def in_mlx() -> None:
    """Writes the same LoRA in MLX's form, whose factors are transposed."""
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


def truncate() -> None:
    path = Path("tone/adapter_model.safetensors")
    path.write_bytes(path.read_bytes()[:-5])


_TELLING = re.compile(r"blocks|error|refused|not as|fine|changed|Error")
_REPAIR = (CHECK, "export ./tone --for peft --base ./base -o ./repaired", "check ./repaired --base ./base")
_MERGED = "merge ./tone --base ./base -o ./merged"
_ENGINES = "check ./tone --base ./base --runtime"
ROWS = (
    *(
        Row("Names", what, renamed(old, new), _REPAIR, (1, 0, 0))
        for what, old, new in (
            ("prefix `foo`", r"model\.layers", "foo.model.layers"),
            ("no prefix `model`", r"model\.model\.layers", "model.layers"),
            ("names of a vision model", r"model\.layers", "model.language_model.layers"),
            ("prefix `_orig_mod`, from torch.compile", r"model\.layers", "_orig_mod.model.layers"),
            ("prefix `policy.llm`, from a trainer", r"model\.layers", "policy.llm.model.layers"),
            ("`lora_A.foo.weight`", r"(lora_[AB])", r"\1.foo"),
        )
    ),
    Row(
        "Extra tensors",
        "an additional `lm_head.base_layer.weight`",
        extra(f"{PREFIX}lm_head.base_layer.weight"),
        (CHECK, _MERGED),
        (1, 1),
    ),
    Row(
        "Extra tensors",
        "an additional `lm_head.weight`, which PEFT loads and a merge applies",
        extra(f"{PREFIX}lm_head.weight"),
        exits=(0,),
    ),
    *(
        Row(
            "Modules that the config leaves out",
            f"`target_modules` {value}",
            fields(target_modules=value),
            (CHECK, _MERGED),
            (1, 1),
        )
        for value in (["q_proj"], [], ["foo"])
    ),
    Row(
        "Modules that the config leaves out",
        '`exclude_modules` ["v_proj"]',
        fields(exclude_modules=["v_proj"]),
    ),
    Row(
        "Modules that the config leaves out",
        "no `target_modules` (PEFT's default has both)",
        without("target_modules"),
        exits=(0,),
    ),
    Row("Token rows", "two indices, one row", rows_of_tokens([1, 2], 1)),
    Row("Token rows", "the same row twice", rows_of_tokens([1, 1], 2)),
    Row("Token rows", "a negative index", rows_of_tokens([1, -2], 2)),
    Row("Token rows", "an index beyond the vocabulary", rows_of_tokens([1, 999], 2)),
    Row("Token rows", "as PEFT writes it", rows_of_tokens([1, 2], 2), exits=(0,)),
    Row(
        "Infinite values",
        "`lora_alpha` 1e38, merged in float16",
        fields(lora_alpha=1e38),
        (f"{_MERGED} --dtype float16",),
    ),
    Row("Infinite values", "factors × 1e30", scaled(1e30), (_MERGED,)),
    *(
        Row("Values of the config", f"`{key}: {json.dumps(value)}`", fields(**{key: value}))
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
    Row("Values of the config", "factors in float64", cast(torch.float64), (CHECK, _MERGED), (0, 0)),
    Row("Values of the config", "factors in float8", cast(torch.float8_e4m3fn), (CHECK, _MERGED), (0, 0)),
    Row(
        "Another base",
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
    Row("Tokenizers", "a reversed vocabulary", unchanged, prepare=with_tokenizers),
    Row(
        "Damaged and unusual adapters",
        "`lora_B` of one layer is zero: a merge counts the weights that it changed",
        lambda tensors, config: tensors.update(
            {name: each * 0 for name, each in tensors.items() if "layers.0" in name and "lora_B" in name}
        ),
        (_MERGED,),
        (0,),
    ),
    Row(
        "Damaged and unusual adapters",
        "`parent_library` `__main__`",
        fields(auto_mapping={"parent_library": "__main__", "base_model_class": "Net"}),
        exits=(0,),
    ),
    Row(
        "Damaged and unusual adapters",
        "`layer_replication`, and a wrong module name",
        lambda tensors, config: (
            renamed("q_proj", "Q_proj")(tensors, config),
            config.update(layer_replication=[[0, 2], [0, 2]]),
        ),
    ),
    Row(
        "Damaged and unusual adapters",
        "a truncated weights file",
        unchanged,
        ("check ./tone",),
        (1,),
        truncate,
    ),
    Row(
        "Limits of ranks",
        "rank 12 for a server with `max_lora_rank=8`",
        of_rank(12),
        ("export ./tone --for vllm,max_lora_rank=8 --base ./base -o ./served",),
    ),
    Row(
        "Engines",
        "`lora_A.default.weight`, vLLM",
        renamed("(lora_[AB])", r"\1.default"),
        (f"{_ENGINES} vllm",),
    ),
    Row(
        "Engines",
        "`bias` `lora_only` without biases, llama.cpp",
        fields(bias="lora_only"),
        (f"{_ENGINES} llama.cpp",),
        (0,),
    ),
    Row("Engines", "no `target_modules`, vLLM", fields(target_modules=None), (f"{_ENGINES} vllm",), (0,)),
    Row(
        "Engines",
        "`modules_to_save` without tensors, mistral.rs",
        fields(modules_to_save=["lm_head"]),
        (f"{_ENGINES} mistral.rs",),
    ),
    Row("Engines", "float64, mistral.rs", cast(torch.float64), (f"{_ENGINES} mistral.rs",)),
    Row(
        "Engines",
        "`exclude_modules`, mistral.rs",
        fields(exclude_modules=["v_proj"]),
        (f"{_ENGINES} mistral.rs",),
    ),
    Row(
        "Engines",
        "a layer that the base lacks, llama.cpp",
        renamed(r"layers\.1", "layers.7"),
        (f"{_ENGINES} llama.cpp",),
    ),
    Row(
        "Other layouts, and rounding",
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
    Row(
        "Other layouts, and rounding", "PEFT's own rounding", unchanged, (f"{_MERGED} --rounding peft",), (0,)
    ),
)


@dataclass(frozen=True)
class CommandResult:
    """A command, its exit code, and the most informative line of its output."""

    command: str
    code: int
    line: str


def run(row: Row) -> list[CommandResult]:
    """Runs the row's commands in an empty folder, with a new registry."""
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
        return [_result(command) for command in row.commands]


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        with patch.dict(os.environ, ADAPTRY_HOME=str(folder / "home")):
            yield
    finally:
        os.chdir(before)


def _result(command: str) -> CommandResult:
    result = CliRunner().invoke(cli, command.split())
    lines = [line.strip() for line in result.output.splitlines() if line.strip()]
    found = next((at for at, line in enumerate(lines) if _TELLING.search(line)), 0)
    line = " / ".join(lines[found : found + (2 if lines and "is refused" in lines[found] else 1)])
    line = line or str(result.exception)
    return CommandResult(command, result.exit_code, _one_cell(re.sub(r"/tmp/\S+?/", "", line)))


def _one_cell(text: str) -> str:
    return textwrap.shorten(text, 240, placeholder=" …").replace("|", "\\|")


def page_rows(row: Row) -> list[str]:
    """The row's lines on the page, made by running its commands."""
    return [
        f"| {row.what} | `adaptry {result.command}` | {result.code} | {result.line} |" for result in run(row)
    ]


def main() -> None:
    sys.stdout.write(
        "# Broken adapters, and what Adaptry reports\n\n"
        "PEFT or an engine would apply most of these adapters wrongly, or not at all. Each is a small LoRA\n"
        "with the defect described; some are valid, as controls. The tables show the exit code of each\n"
        "command and the most informative line of its output, shortened. `python -m\n"
        "tests.checks.broken_adapters > docs/broken-adapters.md` generates this page; a test runs the\n"
        "commands and compares their output with it.\n"
    )
    heading = ""
    for row in ROWS:
        if row.heading != heading:
            heading = row.heading
            sys.stdout.write(
                f"\n## {heading}\n\n| adapter | command | exit code | output |\n|---|---|---|---|\n"
            )
        sys.stdout.writelines(f"{line}\n" for line in page_rows(row))


if __name__ == "__main__":
    main()
