"""`add_evidence` and `evidence`: measurements of a version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adaptry.facade.arguments import RefLike, parse_ref
from adaptry.facade.progress_bars import ShowProgress, shown_progress
from adaptry.facade.registries import RegistryLike, opened
from adaptry.operations.evidence.addition import add_evidence as add_files
from adaptry.registry.evidence import EvidenceAddition, EvidenceInfo
from adaptry.registry.pagination import iter_items


def add_evidence(
    registry: RegistryLike,
    ref: RefLike,
    files: Path | str | Sequence[Path | str],
    *,
    progress: ShowProgress = True,
) -> tuple[EvidenceAddition, ...]:
    """Adds results files to a version, unmodified. Adding the same file again has no effect.

        adaptry.add_evidence(registry, "acme/tone@3", "out/results_2026-11-28T10-00-00.json")

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, as in `"acme/tone@3"`, or what `push` or `search` returned.
        files: One or several files that lm-eval, transformers, TRL, Inspect, MLflow or W&B wrote, files of
            `.eval_results`, a README with a model-index, or folders with such files.
        progress: False shows no bars.

    Raises:
        NotFound: there is no such version or file.
        Invalid: a file cannot be read as results; the message names the place.
        Conflict: a file states that another revision was measured.
        PermissionDenied, Unauthenticated, Unavailable, StorageFull.
    """
    parsed = parse_ref(ref)
    paths = tuple(map(Path, [files] if isinstance(files, Path | str) else files))
    with opened(registry) as changed, shown_progress(progress) as bars:
        return add_files(changed, parsed, paths, progress=bars)


def evidence(
    registry: RegistryLike, ref: RefLike, *, task: str | None = None, metric: str | None = None
) -> tuple[EvidenceInfo, ...]:
    """Returns the measurements of a version, newest first, including logged metrics.

        for found in adaptry.evidence(registry, "acme/tone@prod", task="gsm8k"):
            print(found.metric, found.value, found.stderr, found.n)

    Args:
        registry: An open registry, a server's URL, or a folder.
        ref: The version, as in `"acme/tone@3"`, or what `push` or `search` returned.
        task: Only values of this task.
        metric: Only values of this metric.

    Raises:
        NotFound: there is no such version, or you may not see it.
        Unauthenticated, Unavailable.
    """
    parsed = parse_ref(ref)
    with opened(registry) as read:
        pages = read.evidence.list
        return tuple(
            iter_items(lambda cursor: pages(parsed, task=task, metric=metric, cursor=cursor, limit=200))
        )
