"""Training with a registry: pushes saved checkpoints, releases the result as a version, and resumes from
either.

    trainer.add_callback(AdaptryCallback(registry, "acme/tone", keep_last=3, best=("eval_loss", "min")))

A checkpoint is a draft on its own branch, so dropping one does not affect others; the final model becomes a
version. An unreachable registry does not stop the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptry.integrations.training.callback import AdaptryCallback
    from adaptry.integrations.training.resumption import resume
    from adaptry.integrations.training.runs import TrainingCheckpoint, checkpoints

__all__ = ["AdaptryCallback", "TrainingCheckpoint", "checkpoints", "resume"]

_MODULES = {
    "AdaptryCallback": "adaptry.integrations.training.callback",
    "TrainingCheckpoint": "adaptry.integrations.training.runs",
    "checkpoints": "adaptry.integrations.training.runs",
    "resume": "adaptry.integrations.training.resumption",
}


def __getattr__(name: str) -> Any:
    """(`Any`: an attribute of any type.) Only the callback loads transformers."""
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'adaptry.integrations.training' has no attribute {name!r}")
