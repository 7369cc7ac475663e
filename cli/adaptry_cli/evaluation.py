"""`adaptry eval`: measure a version with lm-evaluation-harness, and store the results as evidence."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from adaptry.core.refs import Ref
from adaptry.registry.interface import Registry
from adaptry.registry.records import VersionInfo
from adaptry_cli.arguments import FOLDER, REF, validate_options
from adaptry_cli.command import command
from adaptry_cli.connection import registry_option
from adaptry_cli.number_options import WholeNumber
from adaptry_cli.output import format_count, json_option, print_err, print_json, print_out, progress


@command("eval")
@click.argument("ref", type=REF)
@click.option(
    "--task", "tasks", metavar="TASK", multiple=True, required=True,
    help="An lm-eval task, such as gsm8k; may be repeated.",
)  # fmt: skip
@click.option(
    "--base", metavar="DIR|NAME",
    help="The base, as lm-eval loads it. Default: the registered folder of the version's base, or its name.",
)  # fmt: skip
@click.option("--limit", metavar="N", type=WholeNumber(1), help="Only the first N documents of each task.")
@click.option(
    "--num-fewshot", metavar="N", type=WholeNumber(0), help="Examples in each prompt. Default: the task's."
)
@click.option(
    "--batch-size",
    metavar="N",
    type=WholeNumber(1),
    default=1,
    show_default=True,
    help="Documents per batch.",
)
@click.option("--apply-chat-template", is_flag=True, help="Format prompts with the base's chat template.")
@click.option(
    "--device",
    metavar="DEVICE",
    default="cpu",
    show_default=True,
    help="Device on which PEFT runs, such as cuda.",
)
@click.option(
    "--include-path",
    metavar="DIR",
    type=FOLDER,
    help="A folder with your own tasks, in lm-eval's YAML format.",
)
@click.option(
    "--engine", metavar="URL",
    help="Evaluate the adapter in this engine, over its OpenAI-compatible interface, without PEFT.",
)  # fmt: skip
@click.option(
    "--model", metavar="NAME", help="The engine's name for the version. Default: its ref by digest."
)
@click.option("--dry-run", is_flag=True, help="Print the shell commands; run nothing.")
@registry_option
@json_option
def eval_(
    registry: Registry,
    ref: Ref,
    tasks: tuple[str, ...],
    base: str | None,
    limit: int | None,
    num_fewshot: int | None,
    batch_size: int,
    apply_chat_template: bool,
    device: str,
    include_path: Path | None,
    engine: str | None,
    model: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Evaluate a version with lm-eval, and add the results to it as evidence.

    The version is fetched by its digest, and the results are added to the same digest. lm-eval is taken from
    this environment (pip install 'adaptry[eval]'), or else from the PATH. With --engine, every answer must
    name the version that gave it; otherwise nothing is added. The engine's API key is read from
    OPENAI_API_KEY.

    With --dry-run, the printed command can be changed and run by hand; lm-eval then pushes its results to the
    registry's server, and does not check which version an engine answers with.
    """
    from adaptry.operations.evaluation import command as lm_eval
    from adaptry.operations.evaluation.run import evaluate, evaluated_model, lm_eval_program, no_check
    from adaptry.registry.job_types.evaluation import EvaluationOptions

    options = validate_options(
        EvaluationOptions,
        tasks=tasks,
        limit=limit,
        num_fewshot=num_fewshot,
        batch_size=batch_size,
        apply_chat_template=apply_chat_template,
    )
    version = registry.versions.get(ref)
    place = _place_of(registry, version, base, is_needed=not dry_run)
    measured = evaluated_model(version, place, device=device, engine=engine, served_as=model)
    path = str(include_path) if include_path else None
    arguments = lm_eval.lm_eval_arguments(measured, options, path)  # refuses paths that lm-eval splits
    if dry_run:
        for line in lm_eval.shell_lines(measured, arguments, getattr(registry, "url", None)):
            print_out(line)
        return
    lm_eval_program()  # before anything is fetched, or an engine is asked
    print_err(f"evaluating {version.label} {version.digest.brief}")
    with ExitStack() as stack:
        before_adding = no_check
        if engine is not None:
            from adaptry.integrations.engine_evaluation import checked_engine

            key = os.environ.get("OPENAI_API_KEY")
            measured, relay = stack.enter_context(checked_engine(measured, version.digest, key))
            before_adding = relay.require_answers
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="adaptry-eval-"))
        added = evaluate(
            registry,
            measured,
            options,
            Path(folder),
            include_path=include_path,
            messages=sys.stderr.buffer,
            progress=stack.enter_context(progress()),
            before_adding=before_adding,
        )
    if as_json:
        print_json(added)
        return
    for one in added:
        print_err(f"{one.file.brief}: added {format_count(one.added, 'value')} to {version.label}")
    print_err(f"adaptry evidence ls {version.label}")


def _place_of(registry: Registry, version: VersionInfo, base: str | None, *, is_needed: bool) -> str | None:
    """The location where lm-eval finds the base: the folder that was passed, or one on this machine that has
    the version's base. If it is needed now, stored weights are fetched.
    """
    from adaptry.core.errors import NotFound
    from adaptry.operations.base_registry import folders_of, open_base

    if base is not None:
        return str(Path(base).absolute()) if Path(base).is_dir() else base
    if version.base_id is None:
        return None
    if not is_needed:
        return next((str(folder) for folder in folders_of(version.base_id) if folder.is_dir()), None)
    try:
        return str(open_base(registry, str(version.base_id)).folder)
    except NotFound:
        return None
