"""The callback for transformers' Trainer: pushes saved checkpoints, and releases the final model as a
version.

Only the first process of a training run pushes, through an `Outbox`, so that training is not blocked. Failed
pushes are logged, at the end with the location of their files.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from adaptry.adapters.adapter import Adapter, open_dir
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Invalid
from adaptry.core.manifest import BaseClaim
from adaptry.core.refs import AdapterName, parse_stored_alias
from adaptry.integrations.inprocess import LoadResult
from adaptry.integrations.training.metrics import metrics_at_step
from adaptry.integrations.training.outbox import Outbox
from adaptry.integrations.training.resumption import ResumePoint
from adaptry.integrations.training.retention import (
    BestMetric,
    RetentionPolicy,
    best_checkpoint,
    expired_checkpoints,
)
from adaptry.integrations.training.runs import (
    TrainingCheckpoint,
    checkpoints,
    new_run_name,
    parse_run_name,
    push_checkpoint,
)
from adaptry.operations.base_recognition import (
    BaseRecogniser,
    BaseSource,
    RecognisedBase,
    unserved_reason,
)
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, PushResult
from adaptry.storage.connect import connect

ReleaseMode = Literal["last", "best"]
_LOG = logging.getLogger("adaptry.integrations.training")
_LIBRARIES = ("transformers", "peft", "torch")


class AdaptryCallback(TrainerCallback):
    """Pushes each checkpoint that the Trainer saves as a draft of `name`, and the final model as a version.

    `run` names the training run (None: a name from the current time); using the same name again continues its
    checkpoints. `keep_last` and `best` select the checkpoints to keep. `release` selects the model that
    becomes a version: "last", the model as the Trainer leaves it (its best with `load_best_model_at_end`);
    "best", the best checkpoint by `best`; None, none. It gets the metrics that were measured at its step, and
    `alias`. `resumed` is the adapter from which the training run resumed, which becomes its parent. At the
    end, the callback waits up to `timeout` seconds for pending pushes; `released` is then the version's ref,
    or None. `base` is the base that is trained on, if the model's config does not identify it: a folder, or a
    name or id in the registry.

    Raises `Invalid` and `InvalidRef` for invalid arguments; later errors never stop the training run.
    """

    def __init__(
        self,
        registry: Registry | str | None,
        name: AdapterName | str,
        *,
        run: str | None = None,
        keep_last: int | None = None,
        best: BestMetric | None = None,
        release: ReleaseMode | None = "last",
        alias: str | None = None,
        resumed: ResumePoint | LoadResult | None = None,
        base: BaseSource | None = None,
        timeout: float = 60.0,
        retry: float = 15.0,
    ) -> None:
        if release == "best" and best is None:
            raise Invalid("to release the best checkpoint, name its metric: best=('eval_loss', 'min')")
        self.name: AdapterName = AdapterName.parse(name) if isinstance(name, str) else name
        self.run: str = parse_run_name(run or new_run_name())
        self.released: str | None = None
        self._registry = registry if isinstance(registry, Registry) else connect(registry)
        self._retention = RetentionPolicy(keep_last, best)
        self._release, self._alias = release, parse_stored_alias(alias) if alias else None
        self._parents, self._base = _parents(resumed), base
        self._recogniser = BaseRecogniser(self._registry.bases)
        self._timeout, self._retry = timeout, retry
        self._outbox: Outbox | None = None
        self._last_base = RecognisedBase(None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not state.is_world_process_zero:
            return
        try:
            self._outbox = Outbox(_LOG.warning, self._retry)
        except OSError as error:
            _LOG.warning("nothing of %s is pushed: there is no folder to keep it (%s)", self.name, error)
            return
        written = _base_name(kwargs.get("model"))
        self._enqueue("the base", None, lambda _: _recognise_base(self._recogniser, written))

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step
        folder = Path(str(args.output_dir)) / f"checkpoint-{step}"
        metrics = metrics_at_step(state.log_history, step)
        self._enqueue(
            f"{self.name}, step {step}", folder, lambda files: self._push_checkpoint(files, step, metrics)
        )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._outbox is None:
            return
        if self._release == "best":
            self._enqueue(f"the best of {self.name}", None, lambda files: self._release_best())
        elif self._release == "last":
            try:
                self._enqueue_last(args, state, kwargs.get("model"))
            except Exception as error:  # noqa: BLE001
                # If saving fails, the trained weights must not be lost.
                _LOG.warning("%s was not pushed: it could not be saved (%s)", self.name, error)
        self._drain_outbox(self._outbox)

    def _enqueue_last(self, args: TrainingArguments, state: TrainerState, model: Any) -> None:
        """(`Any`: any kind of trained model.)"""
        step = _step_at_end(args, state)
        metrics = metrics_at_step(state.log_history, step)
        with tempfile.TemporaryDirectory(prefix="adaptry-") as place:
            last = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            folder = last if _is_sharded(args) else _saved(model, Path(place))
            if folder is None:
                _LOG.warning("%s was not pushed: the trained model is not a PEFT model", self.name)
                return
            self._enqueue(str(self.name), folder, lambda files: self._release_last(files, step, metrics))

    def _enqueue(self, title: str, folder: Path | None, work: Any) -> None:
        """(`Any`: a lambda's type.)"""
        if self._outbox is None:
            return
        try:
            self._outbox.enqueue(title, folder, work)
        except (AdaptryError, OSError) as error:
            _LOG.warning("%s was not pushed: %s", title, error)

    def _drain_outbox(self, outbox: Outbox) -> None:
        for pending in outbox.drain(self._timeout):
            reason = pending.error.message if pending.error else "there was no time left"
            _LOG.warning(
                "%s is not in the registry (%s); its files are in %s: %s",
                pending.title, reason, pending.folder, self._push_command(pending.folder),
            )  # fmt: skip
        self._outbox = None

    def _push_command(self, folder: Path) -> str:
        """The command that pushes a folder, for use outside the training run's working directory."""
        words = ["adaptry", "push", str(folder), str(self.name)]
        base: object = self._base
        if isinstance(base, BaseClaim):
            base = base.id or base.name
        elif base is None:
            with contextlib.suppress(AdaptryError):
                base = self._recogniser.find_folder(open_dir(folder).config.base_name)
        return shlex.join([*words, "--base", str(base)] if base is not None else words)

    # Called on the outbox's thread.

    def _push_checkpoint(self, files: Path, step: int, metrics: Mapping[str, float]) -> None:
        adapter = open_dir(files)
        push_checkpoint(
            self._registry, adapter, self.name, self.run, step, metrics,
            base=self._recognised(adapter), parents=self._parents, provenance=self._provenance(step),
        )  # fmt: skip
        for old in expired_checkpoints(self._checkpoints(), self._retention):
            self._registry.commits.delete_branch(self.name, old.branch)

    def _release_last(self, files: Path, step: int, metrics: Mapping[str, float]) -> None:
        adapter = open_dir(files)
        base = self._recognised(adapter)
        pushed = push(
            self._registry, adapter, self.name, base=base, parents=self._parents,
            options=self._options(metrics), provenance=self._provenance(step),
        )  # fmt: skip
        self._note_release(pushed, base)

    def _release_best(self) -> None:
        best = best_checkpoint(self._checkpoints(), self._retention.best)
        if best is None:
            assert self._retention.best is not None
            raise Invalid(f"no checkpoint of {self.run} has the metric {self._retention.best[0]}")
        tree = self._registry.commits.tree(self.name, best.digest)
        pushed = self._registry.versions.put(self.name, tree.to_bytes(), self._options(best.metrics))
        self._note_release(pushed, self._last_base)

    def _recognised(self, adapter: Adapter) -> RecognisedBase:
        self._last_base = self._recogniser.base_of(adapter, self._base)
        return self._last_base

    def _note_release(self, pushed: PushResult, base: RecognisedBase) -> None:
        self.released = pushed.version.label
        if reason := unserved_reason(pushed, base):
            _LOG.warning("%s: %s", self.released, reason)

    def _checkpoints(self) -> tuple[TrainingCheckpoint, ...]:
        return checkpoints(self._registry, self.name, self.run)

    def _options(self, metrics: Mapping[str, float]) -> PushOptions:
        return PushOptions(metrics=dict(metrics), alias=self._alias)

    def _provenance(self, step: int) -> dict[str, str]:
        found = {"run": self.run, "step": str(step)}
        for library in _LIBRARIES:
            try:
                found[library] = version(library)
            except PackageNotFoundError:
                continue
        return found


def _base_name(model: Any) -> str | None:
    """The path or name that PEFT writes into the adapter's config. (`Any`: the trained model.)"""
    configs = getattr(model, "peft_config", None) or {}
    name = next((getattr(config, "base_model_name_or_path", None) for config in configs.values()), None)
    return name if isinstance(name, str) else None


def _recognise_base(recogniser: BaseRecogniser, written: str | None) -> None:
    recogniser.find_folder(written)


def _parents(resumed: ResumePoint | LoadResult | None) -> tuple[Digest, ...]:
    match resumed:
        case ResumePoint():
            return (resumed.digest,)
        case LoadResult(version=placed) if placed is not None:
            return (placed.digest,)
    return ()


def _is_sharded(args: TrainingArguments) -> bool:
    """Whether no one process has all the weights, so that only the Trainer can save them."""
    return bool(args.fsdp) or args.deepspeed is not None


def _saved(model: Any, folder: Path) -> Path | None:
    """(`Any`: any kind of trained model.)"""
    if not hasattr(model, "peft_config"):
        return None
    model.save_pretrained(folder)
    return folder


def _step_at_end(args: TrainingArguments, state: TrainerState) -> int:
    """The step whose weights the model has at the end: the best step, if the Trainer went back to it."""
    best = getattr(state, "best_global_step", None)  # since transformers 4.50
    return int(best) if args.load_best_model_at_end and best else state.global_step
