"""The role of a registry that stores the metrics of versions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.core.refs import Ref

if TYPE_CHECKING:
    from adaptry.registry.records import MetricInfo


class Metrics(ABC):
    """Metrics of versions, which are appended and never overwritten."""

    @abstractmethod
    def log(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        """Appends values; nothing is overwritten. Raises `NotFound`, `PermissionDenied`, `Invalid` (not
        finite, bad name, more than 1,024 metrics or 10,000 values of the version).
        """

    @abstractmethod
    def list(self, ref: Ref) -> tuple[MetricInfo, ...]:
        """Every value ever logged for a version, oldest first."""
