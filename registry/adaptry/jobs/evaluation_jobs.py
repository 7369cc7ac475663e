"""The job that evaluates a version with lm-eval, and adds the results as evidence."""

from __future__ import annotations

from adaptry.core.refs import Ref
from adaptry.jobs.context import JobContext
from adaptry.jobs.ipc import StepResult
from adaptry.operations.base_registry import open_base
from adaptry.operations.evaluation.run import evaluate as run_evaluation
from adaptry.operations.evaluation.run import evaluated_model
from adaptry.registry.job_types.evaluation import EvaluationOptions
from adaptry.registry.job_types.tasks import EvaluateTask


def evaluate(task: EvaluateTask, context: JobContext) -> StepResult:
    version = context.registry.versions.get(Ref.parse(task.ref))
    key = task.base or (str(version.base_id) if version.base_id else version.base_name)
    base = str(open_base(context.registry, key, progress=context.progress).folder) if key else None
    model = evaluated_model(version, base, device=context.device)
    options = EvaluationOptions(**task.model_dump(exclude={"ref", "base"}))
    folder = context.scratch / "evaluation"
    folder.mkdir(parents=True)
    added = run_evaluation(context.registry, model, options, folder, progress=context.progress)
    return StepResult(
        result={
            "version": version.label,
            "digest": str(version.digest),
            "values": sum(one.added for one in added),
            "files": [str(one.file) for one in added],
        }
    )
