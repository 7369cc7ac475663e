"""Exchanges verified ID tokens of CI jobs for tokens that push to one adapter, once each.

Signatures and the claims that every ID token has are checked before (`adaptry_api.oauth`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from adaptry.core.access.ci_jobs import CiJob
from adaptry.core.access.grants import Limit
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Unauthenticated
from adaptry.core.identity import Identity
from adaptry.core.refs import AdapterName
from adaptry.registry.access import CreatedToken
from adaptry.registry.publishers import IssuerInfo
from adaptry.storage import tokens
from adaptry.storage.catalog import principals, publishers
from adaptry.storage.catalog import tokens as kept
from adaptry.storage.catalog.audit_log.recorder import AuditTarget, record, set_actor
from adaptry.storage.catalog.database import Catalog

KIND = "ci"
LIFETIME = timedelta(minutes=15)
LEEWAY = timedelta(minutes=1)
"""How far clocks may differ: an ID token is used up until this long after its end."""
_RETENTION = timedelta(days=1)


def find_issuer(catalog: Catalog, url: str) -> IssuerInfo | None:
    """The trusted issuer whose URL is the `iss` claim of its tokens; None if there is no such issuer."""
    with catalog.read() as tx:
        found = publishers.find_issuer(tx, url=url)
        return found.info if found else None


def exchange(
    catalog: Catalog,
    issuer: IssuerInfo,
    job: CiJob,
    name: AdapterName,
    jti: str,
    expires_at: datetime,
    facts: Mapping[str, object],
    now: datetime | None = None,
) -> CreatedToken:
    """A token for the job's publisher of the adapter, valid for 15 minutes. `facts` go into the audit log.

    Raises `Unauthenticated` if the adapter has no publisher for the job, with the same message whether the
    adapter exists or not, and if the ID token was used before.
    """
    now = now or datetime.now(UTC)
    with catalog.write() as tx:
        found = next(
            (
                one
                for one in publishers.of_adapter(tx, name)
                if one.info.issuer == issuer.name and one.rule.matches(job)
            ),
            None,
        )
        account = principals.by_key(tx, found.principal) if found else None
        if found is None or account is None or account.info.disabled_at is not None:
            raise Unauthenticated(
                f"no publisher of {name} is for this job of the issuer {issuer.name} ({job}); an owner of"
                f" {name.namespace} compares it with `adaptry publisher ls {name}`"
            )
        if not publishers.use_id_token(tx, issuer.url, jti, expires_at + LEEWAY, now):
            raise Unauthenticated("this ID token was used before; request a new one for each exchange")
        set_actor(tx, Identity(account.info.name, principal=account.key))
        target = AuditTarget(str(name), name.namespace)
        record(tx, "publisher.exchange", target, now, after={"publisher": found.info.id, **facts})
        kept.delete_expired(tx, account.key, KIND, now - _RETENTION)
        limit = Limit(("push",), (Resource(name.namespace, name.name),))
        label = f"job-{hashlib.sha256(f'{issuer.url}{jti}'.encode()).hexdigest()[:16]}"
        until = now + LIFETIME
        issued = tokens.issue(tx, account, label, limit, until, account.info.name, kind=KIND)
    return CreatedToken(
        id=issued.id, principal=account.info.name, name=issued.name, secret=issued.secret, expires_at=until
    )
