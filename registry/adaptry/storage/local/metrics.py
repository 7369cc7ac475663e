"""The metrics role of a local registry: values that are logged after a push, and never changed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from adaptry.core.errors import Invalid
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.refs import Ref
from adaptry.core.value import is_boolean
from adaptry.registry.metrics import Metrics
from adaptry.storage.catalog import events
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.metrics import append, count_logged, history, newest
from adaptry.storage.catalog.versions import VersionRecord, to_record
from adaptry.storage.local.context import RegistryContext

if TYPE_CHECKING:
    from adaptry.registry.records import MetricInfo

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]{0,63}")
_MAX_BATCH = 64
MAX_METRICS = 1024
"""Maximum number of metrics that a version may have: each of its listings shows the newest value of all."""
MAX_VALUES = 10_000
"""Maximum number of values that may be logged for a version: `list` returns all of them."""


@dataclass(frozen=True)
class LocalMetrics(Metrics):
    """The metrics of a local registry."""

    context: RegistryContext

    def log(self, ref: Ref, metrics: Mapping[str, float]) -> None:
        check_metrics(metrics)
        with self.context.write() as tx:
            adapter = self.context.writable_adapter(tx, ref.name, "evidence.add")
            stored = to_record(self.context.resolve(tx, ref))
            self.context.run_once(tx, type(None), lambda: self._log(tx, adapter, stored, metrics))

    def _log(
        self, tx: Transaction, adapter: AdapterRecord, stored: VersionRecord, metrics: Mapping[str, float]
    ) -> None:
        _require_room(tx, adapter, stored, metrics)
        now, by = self.context.clock(), self.context.identity.name
        append(tx, stored, metrics, now, by)
        events.record(
            tx, "metrics.logged", at=now, by=by, adapter=adapter, number=stored.number, detail=metrics
        )

    def list(self, ref: Ref) -> tuple[MetricInfo, ...]:
        with self.context.catalog.read() as tx:
            return history(tx, to_record(self.context.resolve(tx, ref)))


def _require_room(
    tx: Transaction, adapter: AdapterRecord, version: VersionRecord, metrics: Mapping[str, float]
) -> None:
    """Raises `Invalid` if the version would have too many metrics or values."""
    where = f"{adapter.name}@{version.number}"
    instead = f"store them in a results file: adaptry evidence add {where} FILE"
    if len(newest(tx, version).keys() | metrics.keys()) > MAX_METRICS:
        raise Invalid(f"{where} may have at most {MAX_METRICS:,} metrics; {instead}")
    if (logged := count_logged(tx, version)) + len(metrics) > MAX_VALUES:
        raise Invalid(f"{where} has {logged:,} logged values, and may have at most {MAX_VALUES:,}; {instead}")


def check_metrics(values: Mapping[str, float]) -> None:
    """Raises `Invalid` for a bad name or a value that is not finite."""
    if not 1 <= len(values) <= _MAX_BATCH:
        raise Invalid(f"log 1 to {_MAX_BATCH} metrics at once, not {len(values)}")
    for name, value in values.items():
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"not a metric's name: {name[:80]!a} (letters, digits, '_', '.', '/', '-', at most 64)"
            )
        if is_boolean(value):
            raise Invalid(f"the metric {name} is {value}, which is not a number: log 1.0 or 0.0 instead")
        if not math.isfinite(value):
            raise Invalid(f"the metric {name} is {value}; only finite numbers can be compared later")
