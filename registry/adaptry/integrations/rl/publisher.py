"""A policy's versions during training: pushed, named by an alias, served, and yanked when they leave the
window.

Each version has the previous one as its parent, and the step in its provenance. Versions older than the
window are yanked: they are no longer found by name, only by digest.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adaptry.adapters.adapter import open_dir
from adaptry.core.errors import Conflict, Invalid, NotFound, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import AdapterName, Ref, parse_stored_alias
from adaptry.integrations.rl.backends import EngineBackend, PolicyBackend, WorkerBackend
from adaptry.integrations.serving.cache.cache import Cache
from adaptry.integrations.serving.engines import Engine
from adaptry.integrations.training.runs import new_run_name, parse_run_name
from adaptry.operations.base_recognition import BaseRecogniser, BaseSource, unserved_reason
from adaptry.operations.promotion import current_alias
from adaptry.operations.transfer import push
from adaptry.registry.interface import Registry
from adaptry.registry.records import PushOptions, StateChange, VersionInfo

if TYPE_CHECKING:
    from peft import PeftModel

_LOG = logging.getLogger("adaptry.integrations.rl")
_MAX_ATTEMPTS = 8
_MAX_LISTED_COMMITS = 50


@dataclass(frozen=True, slots=True)
class PublishResult:
    """A version of the policy. `model` is the name to request from engines."""

    version: VersionInfo
    model: str


class Publisher:
    """Publishes versions of `name`; `alias` names the newest.

    With `engines`, each version is loaded into them under its own name, from `cache`, which they must see
    under the same path; without `engines`, workers that follow the alias (`adaptry follow`) serve it. `run`
    names the training run: with the same name, a restarted program continues the window. `base` is the base
    that is trained on, if the model's config does not identify it. Raises `Invalid`, `InvalidRef`.
    """

    def __init__(
        self,
        registry: Registry,
        name: AdapterName | str,
        *,
        alias: str = "live",
        window: int = 4,
        engines: Sequence[Engine] = (),
        cache: Cache | None = None,
        run: str | None = None,
        base: BaseSource | None = None,
    ) -> None:
        if window < 1:
            raise Invalid(f"a window must have at least 1 version, not {window}")
        if engines and cache is None:
            raise Invalid(
                "engines load from a cache: pass cache=Cache(folder), with a folder that they can read too"
            )
        self.name: AdapterName = AdapterName.parse(name) if isinstance(name, str) else name
        self.alias, self.window, self.run = (
            parse_stored_alias(alias),
            window,
            parse_run_name(run or new_run_name()),
        )
        self._registry, self._base = registry, base
        self._recogniser = BaseRecogniser(registry.bases)
        self._is_warned = False
        self._backend: PolicyBackend = (
            EngineBackend(registry, engines, cache)
            if cache
            else WorkerBackend(registry, f"{self.name}@{self.alias}")
        )
        self._window = self._load_window()

    def publish(
        self,
        model: PeftModel,
        step: int,
        metrics: Mapping[str, float] | None = None,
        adapter: str = "default",
    ) -> PublishResult:
        """Pushes the current adapter of that name in `model`, moves the alias and lets engines load it.

        If the policy did not change, this returns the existing version. Raises the errors of `push`,
        `CheckFailed` if an engine refuses it, `Unavailable`; then it can be published again.
        """
        with tempfile.TemporaryDirectory(prefix="adaptry-") as place:
            version = self._push(_saved(model, Path(place), adapter), step, metrics or {})
        self._move_alias(version)
        self._backend.deploy(version)
        if version.digest not in {old.digest for old in self._window}:
            self._window.append(version)
        self._close_window()
        return PublishResult(version, self._backend.model_name(version))

    def drain(self, timeout: float = 120.0, poll: float = 0.2) -> None:
        """Waits until engines answer from the newest version only, and no request uses an older one.

        Raises `Unavailable` after `timeout` seconds, naming the engines that are behind; `NotFound` if
        nothing was published.
        """
        if not self._window:
            raise NotFound(f"no version of {self.name} was published yet")
        deadline = time.monotonic() + timeout
        while behind := self._backend.not_up_to_date(self._window[-1]):
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"after {timeout:g} s, {', '.join(behind[:5])} did not switch to"
                    f" {self._window[-1].digest.brief}…"
                )
            time.sleep(poll)

    def _push(self, folder: Path, step: int, metrics: Mapping[str, float]) -> VersionInfo:
        adapter = open_dir(folder)
        base = self._recogniser.base_of(adapter, self._base)
        pushed = push(
            self._registry,
            adapter,
            self.name,
            base=base,
            parents=(self._window[-1].digest,) if self._window else (),
            options=PushOptions(metrics=dict(metrics)),
            provenance={"run": self.run, "step": str(step)},
        )
        if not self._is_warned and (reason := unserved_reason(pushed, base)):
            _LOG.warning("%s: %s", pushed.version.label, reason)
            self._is_warned = True
        return pushed.version

    def _move_alias(self, version: VersionInfo) -> None:
        """Moves the alias. The newest published version wins, even if another process moved the alias in the
        meantime.
        """
        for _ in range(_MAX_ATTEMPTS):
            now = current_alias(self._registry.aliases, self.name, self.alias)
            if now and now.digest == version.digest:
                return
            try:
                self._registry.aliases.move(
                    self.name, self.alias, version.digest, now.generation if now else None
                )
                return
            except Conflict:
                continue
        raise Conflict(
            f"someone else keeps moving {self.name}@{self.alias}; use a separate alias for this run"
        )

    def _close_window(self) -> None:
        while len(self._window) > self.window:
            old = self._window[0]
            found = self._registry.versions.get(Ref.of_revision(self.name, old.digest))
            if found.state == "active" and not found.aliases:
                reason = f"left the window of {self.window} versions of {self.run}"
                self._registry.versions.set_state(
                    self.name, old.digest, StateChange(state="yanked", reason=reason), found.state_generation
                )
            del self._window[0]

    def _load_window(self) -> list[VersionInfo]:
        """The window of an earlier process of this run, oldest first."""
        try:
            recent = self._registry.versions.list(self.name, limit=_MAX_LISTED_COMMITS).items
        except NotFound:
            return []
        ours = [each for each in recent if each.state == "active" and self._is_ours(each)]
        return ours[: self.window][::-1]

    def _is_ours(self, version: VersionInfo) -> bool:
        manifest = self._registry.versions.detail(Ref.of_revision(self.name, version.digest)).manifest
        return manifest.provenance.get("run") == self.run


def _saved(model: PeftModel, folder: Path, adapter: str) -> Path:
    if adapter not in model.peft_config:
        raise NotFound(f"the model has no adapter {adapter!r}; it has {', '.join(sorted(model.peft_config))}")
    from safetensors import SafetensorError

    try:
        model.save_pretrained(str(folder), selected_adapters=[adapter])
    except (OSError, SafetensorError) as error:
        raise Unavailable(f"the policy cannot be written to {folder}: {error}") from error
    return folder if adapter == "default" else folder / adapter
