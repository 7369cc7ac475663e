"""Quotas of a local registry: reads, sets and removes them, and decides who may do so."""

from __future__ import annotations

from dataclasses import asdict, fields

from adaptry.core.errors import NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.quotas import EVERY, QuotaLimits, QuotaSubject, StoredUse, refuse_bytes
from adaptry.core.refs import AdapterName, parse_namespace
from adaptry.registry.quotas import QuotaInfo, QuotaRequest, Quotas
from adaptry.storage.catalog import files, quotas, stored_use
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.quotas import BUILT_IN, NO_LIMITS, limited, raise_if


@dataclass(frozen=True)
class LocalQuotas(Quotas):
    """The quotas of a local registry."""

    context: RegistryContext

    def list(self, subject: QuotaSubject | None = None) -> tuple[QuotaInfo, ...]:
        identity = self.context.identity
        with self.context.catalog.read() as tx:
            if subject is not None:
                self._require_seeing(tx, subject)
                return (_info(tx, subject),)
            if identity.may_administer:
                return tuple(_info(tx, one) for one in quotas.every(tx))
            return (_info(tx, QuotaSubject("principal", identity.name)),)

    def set(self, request: QuotaRequest) -> QuotaInfo:
        subject = QuotaSubject(request.scope, request.name)
        from adaptry.storage.local.principals import require_administrator

        require_administrator(self.context, f"set the quota of {subject}")
        limits = QuotaLimits(request.bytes, request.versions, request.uploads, request.requests)
        with self.context.write() as tx:
            _require_name(tx, subject)
            was = quotas.own(tx, subject)
            quotas.put(tx, subject, limits, self.context.clock(), self.context.identity.name)
            values = _values(subject, was) if was else None, _values(subject, limits)
            self.context.record(tx, "quota.set", _target(subject), before=values[0], after=values[1])
            return _info(tx, subject)

    def remove(self, subject: QuotaSubject) -> None:
        from adaptry.storage.local.principals import require_administrator

        require_administrator(self.context, f"remove the quota of {subject}")
        with self.context.write() as tx:
            was = quotas.own(tx, subject)
            if was is None:
                raise NotFound(f"no quota is set for {subject}; `adaptry quota ls` shows those that are")
            quotas.remove(tx, subject)
            self.context.record(tx, "quota.remove", _target(subject), before=_values(subject, was))

    def require_room(self, name: AdapterName, size: int) -> None:
        with self.context.catalog.read() as tx:
            for subject, limits in limited(self.context, tx, name.namespace):
                raise_if(refuse_bytes(subject, stored_use.find(tx, subject), size, limits))

    def _require_seeing(self, tx: Transaction, subject: QuotaSubject) -> None:
        identity = self.context.identity
        is_own = subject == ("principal", identity.name)
        is_member = subject.scope == "namespace" and identity.has_namespace(subject.name)
        if not (identity.may_administer or is_own or is_member):
            raise PermissionDenied(f"{identity.name} may not see the quota of {subject}")
        if not is_own:
            _require_name(tx, subject)


def _target(subject: QuotaSubject) -> AuditTarget:
    """The target of a quota in the audit log. A namespace's owners may read about its quota there; `*` is for
    administrators.
    """
    is_namespace = subject.scope == "namespace" and subject.name != EVERY
    return AuditTarget(subject.name, subject.name if is_namespace else None)


def _values(subject: QuotaSubject, limits: QuotaLimits) -> dict[str, object]:
    return {"scope": subject.scope, **asdict(limits)}


def _require_name(tx: Transaction, subject: QuotaSubject) -> None:
    """Raises `InvalidRef` or `NotFound` for a name that is not valid in the scope."""
    if subject.name in (EVERY, files.BASES):
        return
    if subject.scope == "namespace":
        parse_namespace(subject.name)
    else:
        from adaptry.storage.local.principals import existing_principal  # not needed by a push

        existing_principal(tx, subject.name)


def _info(tx: Transaction, subject: QuotaSubject) -> QuotaInfo:
    own = quotas.own(tx, subject) or NO_LIMITS
    limits = quotas.effective(tx, subject).or_else(BUILT_IN[subject.scope])
    use = StoredUse() if subject.name == EVERY else stored_use.find(tx, subject)
    return QuotaInfo.model_validate(
        {
            "scope": subject.scope,
            "name": subject.name,
            "own": [one.name for one in fields(own) if getattr(own, one.name) is not None],
            **{one.name: getattr(limits, one.name) for one in fields(limits)},
            "used_bytes": use.bytes,
            "reserved_bytes": use.reserved,
            "used_versions": use.versions,
            "open_uploads": use.uploads,
        }
    )
