"""Keeps recently requested merged models open, since opening one reads many headers and samples its base."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from adaptry.compute.merging.streaming.virtual_checkpoint import VirtualCheckpoint
from adaptry.compute.sidecar_client.inputs import ModelInputs
from adaptry.core.digest import Digest

_MAX_OPEN = 8

_Key = tuple[Digest, Digest, str, str]


class ModelPool:
    """A pool of open models, safe for many threads: one thread opens a model while the others wait."""

    def __init__(self, make: Callable[[ModelInputs], VirtualCheckpoint]) -> None:
        self._make = make
        self._places: OrderedDict[_Key, _PoolEntry] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, inputs: ModelInputs) -> VirtualCheckpoint:
        """The model with these inputs. It is opened again if the base's files have changed. Raises the errors
        of opening it.
        """
        key = (inputs.base, inputs.revision, inputs.adapter, inputs.base_name)
        with self._lock:
            place = self._places.setdefault(key, _PoolEntry())
            self._places.move_to_end(key)
            while len(self._places) > _MAX_OPEN:
                self._places.popitem(last=False)
        with place.lock:
            if place.model is None or not place.model.is_current:
                place.model = None
                place.model = self._make(inputs)
            return place.model


class _PoolEntry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.model: VirtualCheckpoint | None = None
