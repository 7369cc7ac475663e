"""`adaptry demo`: the main job, whole, on a real model with really trained adapters.

Each chapter is one function. What a user would type is run as they would type it, in a process of its own;
the rest (training, judging, comparing) is done here, with PEFT and transformers.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import click

from adaptry.core.errors import AdaptryError
from adaptry_cli.demo import foreign_adapter, model, tasks
from adaptry_cli.demo.comparison import compare_with_peft
from adaptry_cli.demo.dependencies import require_dependencies
from adaptry_cli.demo.evaluation import measure
from adaptry_cli.demo.narrator import Narrator
from adaptry_cli.demo.shell import Shell
from adaptry_cli.demo.tasks import DemoTask
from adaptry_cli.demo.training import PACKAGE_FIRST, PACKAGE_SECOND, SUMMARY, DemoAdapter, LoraTraining, train

_BASE = "./smollm2"
_KEPT = 0.05  # of accuracy, on 160 examples: rounding to bfloat16 turns a few answers


@click.command()
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("adaptry-demo"),
    show_default=True,
    help="Where the demo works; its model is kept there for the next run.",
)
def demo(folder: Path) -> None:
    """Show the whole job on a real model.

    Train, push, find, check, promote, merge, serve. Takes a few minutes on two cores. Nothing outside the
    folder is touched, and nothing is fetched.
    """
    require_dependencies()
    stage = _set_up(folder.resolve())
    trained = _train(stage)
    _push(stage, trained)
    _find(stage)
    _refuse(stage)
    _promote(stage)
    merged = _merge(stage, trained)
    served = _serve(stage)
    stage.narrator.closing([*_metrics(trained), *merged, *served, f"all in {stage.narrator.seconds:.0f} s"])


@dataclass(frozen=True, slots=True)
class _Stage:
    """The folder, the teller, the commands, and the two tasks."""

    folder: Path
    narrator: Narrator
    shell: Shell
    package: DemoTask
    summary: DemoTask


@dataclass(frozen=True, slots=True)
class _Adapters:
    """The three that were trained."""

    first: DemoAdapter
    second: DemoAdapter
    summary: DemoAdapter


def _set_up(folder: Path) -> _Stage:
    """A fresh registry and fresh outputs; only the model is kept from an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("registry", "server", "package-1", "package-2", "summary", "stranger", "merged", "pulled"):
        shutil.rmtree(folder / old, ignore_errors=True)
    narrator = Narrator()
    shell = Shell(folder, narrator, {"ADAPTRY_HOME": str(folder / "registry")})
    narrator.chapter(f"A real base model: {model.BASE}")
    narrator.say("its weights come in a package; written once as a Hugging Face checkpoint")
    model.checkpoint(folder / "smollm2")
    return _Stage(folder, narrator, shell, tasks.package(), tasks.summary())


def _train(stage: _Stage) -> _Adapters:
    stage.narrator.chapter(
        "Real adapters: three LoRAs trained with PEFT on the standard library's docstrings"
    )
    for task in (stage.package, stage.summary):
        stage.narrator.say(f"{task.name}: {task.title}")
    first = _trained(stage, stage.package, "package-1", PACKAGE_FIRST)
    second = _trained(stage, stage.package, "package-2", PACKAGE_SECOND, first.base_metric)
    adapters = _Adapters(first, second, _trained(stage, stage.summary, "summary", SUMMARY))
    stage.narrator.table(
        "On held-out text",
        ("adapter", "LoRA", "metric", "untrained base", "with adapter", "seconds"),
        [
            ("package-1", _shape(PACKAGE_FIRST), "accuracy ↑", *_numbers(first)),
            ("package-2", _shape(PACKAGE_SECOND), "accuracy ↑", *_numbers(second)),
            ("summary", _shape(SUMMARY), "perplexity ↓", *_numbers(adapters.summary)),
        ],
    )
    for task, trained in ((stage.package, first), (stage.package, second), (stage.summary, adapters.summary)):
        better = task.is_better(trained.adapter_metric, than=trained.base_metric)
        _hold(better, f"training {task.name} did not help")
    return adapters


def _push(stage: _Stage, trained: _Adapters) -> None:
    stage.narrator.chapter("Into the registry: SQLite and files, nothing to start")
    run = stage.shell.adaptry
    run("base", "add", _BASE, "--name", model.BASE, "--full")
    for folder, name, adapter, metric in (
        ("./package-1", "demo/package", trained.first, "accuracy"),
        ("./package-2", "demo/package", trained.second, "accuracy"),
        ("./summary", "demo/summary", trained.summary, "perplexity"),
    ):
        run("push", folder, name, "--base", model.BASE, "--metric", f"{metric}={adapter.adapter_metric:.4f}")


def _find(stage: _Stage) -> None:
    stage.narrator.chapter("Found again: by base, method, rank, module and metric")
    run = stage.shell.adaptry
    run("ls")
    run("show", "demo/package@1")
    run("search", f"base:{model.BASE} method:lora rank<=8 module:q_proj metric.accuracy>=0.3")
    run("search", "rank>=16 module:o_proj metric.perplexity<40")


def _refuse(stage: _Stage) -> None:
    stage.narrator.chapter("An adapter for another base is refused, and told why")
    foreign_adapter.write_foreign_adapter(stage.folder / "stranger")
    stage.shell.adaptry("check", "./stranger", "--base", model.BASE, expect=1)
    stage.shell.adaptry("push", "./stranger", "demo/stranger", "--base", model.BASE, expect=1)


def _promote(stage: _Stage) -> None:
    stage.narrator.chapter("Which one is live: the alias prod moves, and moves back")
    run = stage.shell.adaptry
    run("alias", "set", "demo/package@1", "prod")
    run("promote", "demo/package@2", "--to", "prod")
    run("rollback", "demo/package@prod")
    run("history", "demo/package")


def _merge(stage: _Stage, trained: _Adapters) -> list[str]:
    stage.narrator.chapter("Merged into the base's weights, as a checkpoint that transformers loads")
    stage.shell.adaptry("merge", "--base", model.BASE, "demo/package@2", "-o", "./merged")
    merged, adapter = stage.folder / "merged", trained.second.folder
    compared = compare_with_peft(stage.folder / "smollm2", adapter, merged, stage.package)
    with stage.narrator.progress() as bars:
        kept = measure(merged, stage.package, progress=bars)
    lines = [
        f"merged = PEFT's merge_and_unload: {compared.different} of {compared.weights:,} weights differ, "
        f"largest difference of a logit {compared.largest:g}",
        f"accuracy of the merged model {kept:.3f}, of the adapter {trained.second.adapter_metric:.3f}",
    ]
    for line in lines:
        stage.narrator.say(line)
    _hold(compared.different <= compared.weights // 1000, "the merged weights are not PEFT's")
    _hold(abs(kept - trained.second.adapter_metric) < _KEPT, "the merge lost the adapter's accuracy")
    return lines


def _serve(stage: _Stage) -> list[str]:
    stage.narrator.chapter("The same over HTTP: push to a server, pull from it, compare")
    here = json.loads(stage.shell.adaptry("show", "demo/package@2", "--json", quiet=True))
    with stage.shell.server(stage.folder / "server") as (url, token):
        remote = Shell(
            stage.folder,
            stage.narrator,
            {
                "ADAPTRY_HOME": str(stage.folder / "registry"),
                "ADAPTRY_URL": url,
                "ADAPTRY_TOKEN": token,
            },
        )
        stage.narrator.say(f"(with ADAPTRY_URL={url} and the token the server wrote)")
        remote.adaptry("base", "add", _BASE, "--name", model.BASE)
        remote.adaptry("push", "./package-2", "demo/package", "--base", model.BASE)
        remote.adaptry("pull", "demo/package@1", "--to", "./pulled")
        there = json.loads(remote.adaptry("show", "demo/package@1", "--json", quiet=True))
    digests = here["version"]["digest"], there["version"]["digest"]
    same_files = _same_files(stage.folder / "package-2", stage.folder / "pulled")
    verdict = "identical" if digests[0] == digests[1] and same_files else "DIFFERENT"
    line = f"digest here, on the server and of what was pulled: {verdict} ({digests[0][:19]}…)"
    stage.narrator.say(line)
    _hold(verdict == "identical", "what came back is not what went in")
    return [line]


def _hold(holds: bool, otherwise: str) -> None:
    """A demo that shows a wrong result is no demo. Raises `AdaptryError`."""
    if not holds:
        raise AdaptryError(f"{otherwise}: this is a fault in adaptry")


def _trained(
    stage: _Stage, task: DemoTask, name: str, tuning: LoraTraining, base: float | None = None
) -> DemoAdapter:
    with stage.narrator.progress() as bars:
        return train(stage.folder / "smollm2", task, stage.folder / name, tuning, bars, base)


def _shape(tuning: LoraTraining) -> str:
    targets = ",".join(target.removesuffix("_proj") for target in tuning.targets)
    return f"r={tuning.rank} α={tuning.alpha} on {targets}"


def _numbers(trained: DemoAdapter) -> tuple[str, str, str]:
    return f"{trained.base_metric:.3f}", f"{trained.adapter_metric:.3f}", f"{trained.seconds:.0f}"


def _metrics(trained: _Adapters) -> list[str]:
    first, second, summary = trained.first, trained.second, trained.summary
    return [
        f"package: accuracy {first.base_metric:.3f} → {first.adapter_metric:.3f} (v1) → "
        f"{second.adapter_metric:.3f} (v2)",
        f"summary: perplexity {summary.base_metric:.1f} → {summary.adapter_metric:.1f}",
    ]


def _same_files(pushed: Path, pulled: Path) -> bool:
    """Whether what came back is, byte for byte, what went in."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    return all((pushed / name).read_bytes() == (pulled / name).read_bytes() for name in names)
