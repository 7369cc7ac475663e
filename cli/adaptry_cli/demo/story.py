"""`adaptry demo`: the main features on a real model, with adapters that are really trained.

Each chapter is one function. Commands run as a user would type them, in separate processes; training,
evaluating and comparing is done here, with PEFT and transformers.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click

from adaptry.core.errors import AdaptryError
from adaptry.core.lazy_dataclass import dataclass
from adaptry_cli.command import command
from adaptry_cli.demo import foreign_adapter, model, tasks
from adaptry_cli.demo.comparison import compare_with_peft
from adaptry_cli.demo.dependencies import require_dependencies
from adaptry_cli.demo.evaluation import measure
from adaptry_cli.demo.narrator import Narrator
from adaptry_cli.demo.shell import Shell
from adaptry_cli.demo.tasks import DemoTask
from adaptry_cli.demo.training import PACKAGE_FIRST, PACKAGE_SECOND, SUMMARY, DemoAdapter, LoraTraining, train

_BASE = "./smollm2"
# Tolerated loss of accuracy on 64 examples: bfloat16 rounding changes a few answers.
_ACCURACY_TOLERANCE = 0.05


@command()
@click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("adaptry-demo"),
    show_default=True,
    help="The folder to work in; the model in it is kept for the next run.",
)
def demo(folder: Path) -> None:
    """Show the main features on a real model.

    Trains three small adapters, pushes, searches, checks, promotes, merges and serves them. Takes one to
    three minutes on two cores. Writes only to its folder, and downloads nothing.
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
    """The folder, the narrator, the shell, and the two tasks."""

    folder: Path
    narrator: Narrator
    shell: Shell
    package: DemoTask
    summary: DemoTask


@dataclass(frozen=True, slots=True)
class _Adapters:
    """The three trained adapters."""

    first: DemoAdapter
    second: DemoAdapter
    summary: DemoAdapter


def _set_up(folder: Path) -> _Stage:
    """Creates a fresh registry and fresh outputs; only the model is kept from an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in ("registry", "server", "package-1", "package-2", "summary", "stranger", "merged", "pulled"):
        shutil.rmtree(folder / old, ignore_errors=True)
    narrator = Narrator()
    shell = Shell(folder, narrator, {"ADAPTRY_HOME": str(folder / "registry")})
    narrator.say(
        "This takes about 3 minutes on two cores: 2 to train and evaluate three adapters, 1 for the rest."
    )
    narrator.chapter(f"A real base model: {model.BASE}")
    narrator.say("Its weights come in a Python package; they are written once as a Hugging Face checkpoint.")
    model.checkpoint(folder / "smollm2")
    return _Stage(folder, narrator, shell, tasks.package(), tasks.summary())


def _train(stage: _Stage) -> _Adapters:
    stage.narrator.chapter(
        "Real adapters: three LoRAs trained with PEFT on the standard library's docstrings"
    )
    for task in (stage.package, stage.summary):
        stage.narrator.say(f"{task.name}: {task.title}")
    stage.narrator.say(
        "package v1 and v2 are two training runs for the first task, v2 with more steps; summary is for the"
        " second. All adapt only the upper half of the layers, which shortens the training."
    )
    first = _trained(stage, stage.package, "package-1", "package v1", PACKAGE_FIRST)
    second = _trained(stage, stage.package, "package-2", "package v2", PACKAGE_SECOND, first.base_metric)
    summary = _trained(stage, stage.summary, "summary", "summary v1", SUMMARY)
    adapters = _Adapters(first, second, summary)
    stage.narrator.table(
        "On held-out text",
        ("adapter", "LoRA", "metric", "base", "base + adapter", "seconds"),
        [
            ("package v1", _shape(PACKAGE_FIRST), "accuracy (higher is better)", *_numbers(first)),
            ("package v2", _shape(PACKAGE_SECOND), "accuracy (higher is better)", *_numbers(second)),
            ("summary v1", _shape(SUMMARY), "perplexity (lower is better)", *_numbers(summary)),
        ],
    )
    choices, held_out = len(stage.package.choices), len(stage.package.held_out)
    stage.narrator.say(
        f"Accuracy is the share of {held_out} docstrings for which the model names the right package;"
        f" guessing among"
        f" {choices}"
        f" gives {1 / choices:.3f}."
    )
    stage.narrator.say(
        "Perplexity is the number of equally likely words that the model chooses between at each word of the"
        " true answer."
    )
    for task, trained in ((stage.package, first), (stage.package, second), (stage.summary, adapters.summary)):
        better = task.is_better(trained.adapter_metric, than=trained.base_metric)
        _require(better, f"training {task.name} did not help")
    return adapters


def _push(stage: _Stage, trained: _Adapters) -> None:
    stage.narrator.chapter("Push into the registry: SQLite and files, no server to start")
    run = stage.shell.adaptry
    run("base", "add", _BASE, "--name", model.BASE, "--full")
    for folder, name, adapter, metric in (
        ("./package-1", "demo/package", trained.first, "accuracy"),
        ("./package-2", "demo/package", trained.second, "accuracy"),
        ("./summary", "demo/summary", trained.summary, "perplexity"),
    ):
        run("push", folder, name, "--base", model.BASE, "--metric", f"{metric}={adapter.adapter_metric:.4f}")


def _find(stage: _Stage) -> None:
    stage.narrator.chapter("Find them: by base, method, rank, module and metric")
    run = stage.shell.adaptry
    run("ls")
    run("show", "demo/package@1")
    run("search", f"base:{model.BASE} method:lora rank<=8 module:q_proj metric.accuracy>=0.3")
    run("search", "rank>=16 module:o_proj metric.perplexity<40")


def _refuse(stage: _Stage) -> None:
    stage.narrator.chapter("An adapter for another base is refused, with the reason")
    foreign_adapter.write_foreign_adapter(stage.folder / "stranger")
    stage.shell.adaptry("check", "./stranger", "--base", model.BASE, expect=1)
    stage.shell.adaptry("push", "./stranger", "demo/stranger", "--base", model.BASE, expect=1)


def _promote(stage: _Stage) -> None:
    stage.narrator.chapter("Release: the alias prod moves to version 2, and back to version 1")
    run = stage.shell.adaptry
    run("alias", "set", "demo/package@1", "prod")
    run("promote", "demo/package@2", "--to", "prod")
    run("rollback", "demo/package@prod")
    run("history", "demo/package")


def _merge(stage: _Stage, trained: _Adapters) -> list[str]:
    stage.narrator.chapter("Merge into the base's weights: a checkpoint that transformers loads")
    stage.shell.adaptry("merge", "--base", model.BASE, "demo/package@2", "-o", "./merged")
    merged, adapter = stage.folder / "merged", trained.second.folder
    compared = compare_with_peft(stage.folder / "smollm2", adapter, merged, stage.package)
    with stage.narrator.progress() as bars:
        kept = measure(merged, stage.package, "the merged model", progress=bars)
    lines = [
        f"merged = PEFT's merge_and_unload: {compared.different} of {compared.weights:,} weights differ, "
        f"largest logit difference {compared.largest:g}",
        f"accuracy of the merged model {kept:.3f}, of base + package v2 {trained.second.adapter_metric:.3f}",
    ]
    for line in lines:
        stage.narrator.say(line)
    stage.narrator.say(
        "The merged weights are rounded to bfloat16, and the adapter was evaluated in float32: a few of"
        f" {len(stage.package.held_out)} answers may change."
    )
    _require(compared.different <= compared.weights // 1000, "the merged weights are not PEFT's")
    _require(
        abs(kept - trained.second.adapter_metric) < _ACCURACY_TOLERANCE,
        "the merge lost the adapter's accuracy",
    )
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
        stage.narrator.say(f"(with ADAPTRY_URL={url} and the token that the server wrote)")
        remote.adaptry("base", "add", _BASE, "--name", model.BASE)
        remote.adaptry("push", "./package-2", "demo/package", "--base", model.BASE)
        remote.adaptry("pull", "demo/package@1", "--to", "./pulled")
        there = json.loads(remote.adaptry("show", "demo/package@1", "--json", quiet=True))
    digests = here["version"]["digest"], there["version"]["digest"]
    same_files = _same_files(stage.folder / "package-2", stage.folder / "pulled")
    verdict = "identical" if digests[0] == digests[1] and same_files else "DIFFERENT"
    places = "the folder's registry, the server and the pulled files"
    line = f"digests of {places}: {verdict} ({digests[0][:19]}…)"
    stage.narrator.say(line)
    _require(verdict == "identical", "the pulled files are not the pushed ones")
    return [line]


def _require(holds: bool, otherwise: str) -> None:
    """Ends the demo if a result is wrong. Raises `AdaptryError`."""
    if not holds:
        raise AdaptryError(f"{otherwise}: this is a bug in Adaptry")


def _trained(
    stage: _Stage,
    task: DemoTask,
    name: str,
    label: str,
    tuning: LoraTraining,
    base: float | None = None,
) -> DemoAdapter:
    with stage.narrator.progress() as bars:
        return train(stage.folder / "smollm2", task, stage.folder / name, tuning, label, bars, base)


def _shape(tuning: LoraTraining) -> str:
    targets = ",".join(target.removesuffix("_proj") for target in tuning.targets)
    return f"r={tuning.rank} α={tuning.alpha} on {targets}"


def _numbers(trained: DemoAdapter) -> tuple[str, str, str]:
    return f"{trained.base_metric:.3f}", f"{trained.adapter_metric:.3f}", f"{trained.seconds:.0f}"


def _metrics(trained: _Adapters) -> list[str]:
    first, second, summary = trained.first, trained.second, trained.summary
    return [
        f"package, accuracy: base {first.base_metric:.3f}, v1 {first.adapter_metric:.3f},"
        f" v2 {second.adapter_metric:.3f}",
        f"summary, perplexity: base {summary.base_metric:.1f}, v1 {summary.adapter_metric:.1f}",
    ]


def _same_files(pushed: Path, pulled: Path) -> bool:
    """Whether the pulled files equal the pushed ones, byte for byte."""
    names = ("adapter_config.json", "adapter_model.safetensors")
    return all((pushed / name).read_bytes() == (pulled / name).read_bytes() for name in names)
