"""The part of a local registry about quotas: their limits, and whether there is room.

Limits hold for stored principals. Work in the registry's own folder is not limited, except in the number of
open uploads of a namespace; its files count towards the limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import NamedTuple

from adaptry.core.digest import Digest
from adaptry.core.errors import AdaptryError, NotFound, PermissionDenied
from adaptry.core.quotas import (
    EVERY,
    QuotaLimits,
    QuotaSubject,
    StoredUse,
    refuse_bytes,
    refuse_upload,
    refuse_versions,
)
from adaptry.core.refs import AdapterName
from adaptry.registry.files import Owner
from adaptry.registry.quotas import QuotaInfo, QuotaRequest, Quotas
from adaptry.storage.catalog import files, quotas, stored_use
from adaptry.storage.catalog.audit_log.recording import AuditTarget
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.local.context import RegistryContext

MAX_OPEN_UPLOADS = 64
"""Sessions that one namespace may have open at once, unless another limit is set; abandoned ones make room
for new ones.
"""
_BUILT_IN = {"namespace": QuotaLimits(uploads=MAX_OPEN_UPLOADS), "principal": QuotaLimits()}
_NO_LIMITS = QuotaLimits()


class QuotaRefusal(NamedTuple):
    """The name whose limit is reached, and the error."""

    subject: QuotaSubject
    error: AdaptryError


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
            for subject, limits in _limited(self.context, tx, name.namespace):
                _raise_if(refuse_bytes(subject, stored_use.find(tx, subject), size, limits))

    def _require_seeing(self, tx: Transaction, subject: QuotaSubject) -> None:
        identity = self.context.identity
        is_own = subject == ("principal", identity.name)
        is_member = subject.scope == "namespace" and identity.has_namespace(subject.name)
        if not (identity.may_administer or is_own or is_member):
            raise PermissionDenied(f"{identity.name} may not see the quota of {subject}")
        if not is_own:
            _require_name(tx, subject)


def _target(subject: QuotaSubject) -> AuditTarget:
    """A namespace's owners may read of its quota in the audit log; `*` is for administrators."""
    is_namespace = subject.scope == "namespace" and subject.name != EVERY
    return AuditTarget(subject.name, subject.name if is_namespace else None)


def _values(subject: QuotaSubject, limits: QuotaLimits) -> dict[str, object]:
    return {"scope": subject.scope, **asdict(limits)}


def refuse_session(
    context: RegistryContext, tx: Transaction, owner: Owner, digest: Digest, size: int
) -> QuotaRefusal | None:
    """Why the caller may open no upload of these bytes; None if they may."""
    is_owned = bool(files.sizes(tx, owner, [digest]))
    for subject, limits in _limited(context, tx, files.tenant_of(owner)):
        use = stored_use.find(tx, subject)
        error = refuse_upload(subject, use, limits)
        if error is None and not is_owned:
            error = refuse_bytes(subject, _without(tx, use, owner, digest), size, limits)
        if error is not None:
            return QuotaRefusal(subject, error)
    return None


def require_version(context: RegistryContext, tx: Reads, namespace: str) -> None:
    """Raises `QuotaExceeded` if the caller may push no new version to the namespace."""
    for subject, limits in _limited(context, tx, namespace):
        if limits.versions is not None:
            _raise_if(refuse_versions(subject, stored_use.find(tx, subject), 1, limits))


def require_bytes(context: RegistryContext, tx: Reads, namespace: str, size: int) -> None:
    """Raises `QuotaExceeded` or `Busy` if the caller may not store `size` more bytes in the namespace."""
    for subject, limits in _limited(context, tx, namespace):
        if limits.bytes is not None:
            _raise_if(refuse_bytes(subject, stored_use.find(tx, subject), size, limits))


def require_namespace_within(context: RegistryContext, tx: Transaction, namespace: str) -> None:
    """Raises `QuotaExceeded` if the namespace exceeds its limits after an adapter was moved to it."""
    for subject, limits in _limited(context, tx, namespace):
        if subject.scope == "namespace":
            use = stored_use.find(tx, subject)
            _raise_if(refuse_bytes(subject, use, 0, limits) or refuse_versions(subject, use, 0, limits))


def _limited(
    context: RegistryContext, tx: Reads, namespace: str
) -> Iterator[tuple[QuotaSubject, QuotaLimits]]:
    """The namespace and the caller, if they are limited, with their limits."""
    identity = context.identity
    place = QuotaSubject("namespace", namespace)
    if identity.principal is None:
        yield place, _BUILT_IN["namespace"]
        return
    for subject in (place, QuotaSubject("principal", identity.name)):
        limits = quotas.effective(tx, subject).or_else(_BUILT_IN[subject.scope])
        if limits != _NO_LIMITS:
            yield subject, limits


def _without(tx: Transaction, use: StoredUse, owner: Owner, digest: Digest) -> StoredUse:
    """The use, without the bytes that another session has reserved for the same file."""
    reserved = files.reserved_bytes(tx, owner, digest)
    return StoredUse(use.bytes, use.versions, max(0, use.reserved - reserved), use.uploads)


def _require_name(tx: Transaction, subject: QuotaSubject) -> None:
    """Raises `InvalidRef`, `NotFound` for a name that the scope cannot have."""
    if subject.name in (EVERY, files.BASES):
        return
    if subject.scope == "namespace":
        AdapterName.parse(f"{subject.name}/x")
    else:
        from adaptry.storage.local.principals import existing_principal  # which no push needs

        existing_principal(tx, subject.name)


def _info(tx: Transaction, subject: QuotaSubject) -> QuotaInfo:
    own = quotas.own(tx, subject) or _NO_LIMITS
    limits = quotas.effective(tx, subject).or_else(_BUILT_IN[subject.scope])
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


def _raise_if(refused: AdaptryError | None) -> None:
    if refused is not None:
        raise refused
