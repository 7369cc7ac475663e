"""Keeps the latest decisions about aliases, so that a transaction need not wait for their evaluation."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

from adaptry.core.digest import Digest

if TYPE_CHECKING:  # most commands decide nothing
    from adaptry.core.gates.decision import PromotionDecision

_CACHE_SIZE = 64


class DecisionCache:
    """The results of the latest decisions, by the digest of their facts. Safe for many threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Digest, PromotionDecision] = OrderedDict()

    def get(self, facts: Digest) -> PromotionDecision | None:
        with self._lock:
            return self._kept.get(facts)

    def put(self, facts: Digest, decision: PromotionDecision) -> None:
        with self._lock:
            self._kept[facts] = decision
            while len(self._kept) > _CACHE_SIZE:
                self._kept.popitem(last=False)
