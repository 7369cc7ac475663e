"""Training with a registry: checkpoints pushed when saved, the result a version, going on from either.

    trainer.add_callback(AdaptryCallback(registry, "acme/tone", keep_last=3, best=("eval_loss", "min")))

A checkpoint is a draft on a branch of its own, so dropping one touches no other; a version is made of the
end. A registry that is away stops no training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptry.integrations.training.callback import AdaptryCallback
    from adaptry.integrations.training.resumption import resume
    from adaptry.integrations.training.runs import TrainingCheckpoint, checkpoints

__all__ = ["AdaptryCallback", "TrainingCheckpoint", "checkpoints", "resume"]

_PLACES = {
    "AdaptryCallback": "adaptry.integrations.training.callback",
    "TrainingCheckpoint": "adaptry.integrations.training.runs",
    "checkpoints": "adaptry.integrations.training.runs",
    "resume": "adaptry.integrations.training.resumption",
}


def __getattr__(name: str) -> Any:
    """(`Any`: whatever the name stands for.) Only the callback loads transformers."""
    import importlib

    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'adaptry.integrations.training' has no attribute {name!r}")
