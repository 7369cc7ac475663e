"""Derives the data of a version in a process that ends afterwards, so that its memory returns to the system.

The process opens the registry like the server that starts it, and has the same rights. It runs the same code,
which reads headers and inspects weights in limited children, and returns only what will be stored. The
server's transaction compares and stores that as usual.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from adaptry.adapters.content import MemoryContent
from adaptry.adapters.inspection.files import inspect_together
from adaptry.adapters.inspection.result import WeightsInspection
from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, Unavailable
from adaptry.core.identity import Identity
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.processes.bounded import NICENESS
from adaptry.core.processes.slots import ProcessSlots
from adaptry.core.refs import AdapterName
from adaptry.registry.records import PushOptions
from adaptry.storage.catalog.versions import Admission
from adaptry.storage.connect import open_local
from adaptry.storage.local.admission import ResolvedBase
from adaptry.storage.local.push_steps import InspectFiles
from adaptry.storage.local.revision_derivation import RevisionDerivation

_SLOTS = ProcessSlots(running=1, waiting=8, timeout=300.0)  # it may need 200 MB
_READ_TIMEOUT = 600.0
"""Seconds after which a process is considered hung and is ended, since others wait for it."""


@dataclass(frozen=True, slots=True)
class DerivationProcess:
    """Starts such processes for the registry in `folder`, with the arguments of `open_local`."""

    folder: Path
    catalog: str | None
    blobs: str | None
    blob_cache: int | None
    require_known_base: bool

    def derive(
        self,
        identity: Identity,
        name: AdapterName,
        declared: Manifest,
        options: PushOptions,
        sent: MemoryContent | None,
    ) -> tuple[Admission, ResolvedBase]:
        """Does what `RevisionDerivation.derive`, or `derive_sent`, does, in the other process. Raises their
        errors, and `Unavailable` if the process fails.
        """
        order = pickle.dumps(_Order(self, identity, name, declared, options, sent))
        with _SLOTS.acquire("adapters of many tensors"):
            try:
                ended = subprocess.run(
                    [sys.executable, "-P", "-m", __name__],
                    input=order,
                    stdout=subprocess.PIPE,
                    check=False,
                    timeout=_READ_TIMEOUT,
                )
            except OSError as error:
                raise _failure(str(error)) from error
            except subprocess.TimeoutExpired as error:
                raise _failure("its process did not answer") from error
        if ended.returncode:
            raise _failure(f"its process ended with code {ended.returncode}")
        answer = pickle.loads(ended.stdout)
        if isinstance(answer, AdaptryError):
            raise answer
        return cast("tuple[Admission, ResolvedBase]", answer)


@dataclass(frozen=True, slots=True)
class _Order:
    """The request to a process: what to derive, and for which caller."""

    place: DerivationProcess
    identity: Identity
    name: AdapterName
    declared: Manifest
    options: PushOptions
    sent: MemoryContent | None

    def result(self) -> tuple[Admission, ResolvedBase] | AdaptryError:
        """The answer of the process."""
        place = self.place
        registry = open_local(
            place.folder,
            self.identity,
            require_known_base=place.require_known_base,
            catalog=place.catalog,
            blobs=place.blobs,
            blob_cache=place.blob_cache,
            is_serving=True,
        )
        try:
            return self._derived(RevisionDerivation(registry.context))
        except AdaptryError as error:
            return error
        finally:
            registry.close()

    def _derived(self, derivation: RevisionDerivation) -> tuple[Admission, ResolvedBase]:
        if self.sent is None:
            return derivation.derive(self.name, self.declared, self.options)
        steps = derivation.derive_sent(self.name, self.declared, self.options, self.sent)
        found: Mapping[Digest, WeightsInspection] | None = None
        while True:
            try:
                step = steps.send(found)
            except StopIteration as end:
                return cast("tuple[Admission, ResolvedBase]", end.value)
            assert isinstance(step, InspectFiles)
            files, inspector = step.files, derivation.context.inspector
            made = inspect_together(inspector, list(files.values()), self.name.namespace)
            found = dict(zip(files, made, strict=True))


def _failure(reason: str) -> Unavailable:
    return Unavailable(f"the adapter could not be read ({reason}); push it again")


if __name__ == "__main__":
    os.nice(NICENESS)
    order: _Order = pickle.loads(sys.stdin.buffer.read())
    sys.stdout.buffer.write(pickle.dumps(order.result()))
