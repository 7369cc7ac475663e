"""Issuers, publishers, and exchanged ID tokens in the catalog."""

from __future__ import annotations

import hashlib
from datetime import datetime
from itertools import count
from typing import NamedTuple

from sqlalchemy import ColumnElement, delete
from sqlmodel import col, select

from adaptry.core.access.ci_jobs import PublisherRule
from adaptry.core.refs import AdapterName
from adaptry.registry.publishers import IssuerInfo, IssuerRequest, PublisherInfo
from adaptry.storage.catalog import principals
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.principals import PrincipalRecord
from adaptry.storage.catalog.rows import IssuerRow, PrincipalRow, PublisherRow, UsedIdTokenRow


class IssuerRecord(NamedTuple):
    """An issuer with its number in the catalog."""

    key: int
    info: IssuerInfo


class PublisherRecord(NamedTuple):
    """A publisher, the jobs that it allows, and the number of its service account."""

    info: PublisherInfo
    rule: PublisherRule
    principal: int


def insert_issuer(tx: Transaction, request: IssuerRequest, now: datetime, by: str) -> IssuerRecord:
    """A new issuer; its name and its URL must be free."""
    row = IssuerRow(**request.model_dump(), created_at=now, created_by=by)
    tx.add(row)
    tx.flush()
    return _issuer(row)


def find_issuer(tx: Transaction, *, name: str | None = None, url: str | None = None) -> IssuerRecord | None:
    """The issuer of that name, or of that URL."""
    which = IssuerRow.name == name if name is not None else IssuerRow.url == url
    row = tx.exec(select(IssuerRow).where(which)).first()
    return _issuer(row) if row else None


def issuers(tx: Transaction) -> tuple[IssuerInfo, ...]:
    return tuple(_issuer(row).info for row in tx.exec(select(IssuerRow).order_by(IssuerRow.name)))


def remove_issuer(tx: Transaction, issuer: IssuerRecord) -> None:
    tx.execute(delete(IssuerRow).where(col(IssuerRow.id) == issuer.key))


def has_publishers(tx: Transaction, issuer: IssuerRecord) -> bool:
    return tx.exec(select(PublisherRow.id).where(PublisherRow.issuer_id == issuer.key)).first() is not None


def insert(
    tx: Transaction,
    name: AdapterName,
    issuer: IssuerRecord,
    account: PrincipalRecord,
    rule: PublisherRule,
    now: datetime,
    by: str,
) -> PublisherRecord:
    row = PublisherRow(
        namespace=name.namespace,
        name=name.name,
        issuer_id=issuer.key,
        principal_id=account.key,
        project_id=rule.project_id,
        owner_id=rule.owner_id,
        workflow=rule.workflow,
        environment=rule.environment,
        branch=rule.branch,
        created_at=now,
        created_by=by,
    )
    tx.add(row)
    tx.flush()
    return _publisher(row, issuer.info.name, account.info.name)


def of_adapter(tx: Transaction, name: AdapterName) -> tuple[PublisherRecord, ...]:
    """The publishers of an adapter, oldest first."""
    return _publishers(tx, PublisherRow.namespace == name.namespace, PublisherRow.name == name.name)


def remove(tx: Transaction, publisher: PublisherRecord) -> None:
    tx.execute(delete(PublisherRow).where(col(PublisherRow.id) == publisher.info.id))


def free_account_name(tx: Transaction, namespace: str) -> str:
    """A name for a publisher's service account, which no principal has or had."""
    beginning = f"{namespace}/publisher-"
    used = tx.exec(select(PrincipalRow.name).where(PrincipalRow.namespace == namespace)).all()
    first = sum(name.startswith(beginning) for name in used) + 1
    return next(
        name for n in count(first) if principals.find_ignoring_case(tx, name := f"{beginning}{n}") is None
    )


def use_id_token(tx: Transaction, issuer: str, jti: str, expires_at: datetime, now: datetime) -> bool:
    """Remembers an ID token until `expires_at`; returns whether it was new."""
    tx.execute(delete(UsedIdTokenRow).where(col(UsedIdTokenRow.expires_at) <= now))
    key = hashlib.sha256(f"{issuer}\n{jti}".encode("utf-8", "surrogatepass")).hexdigest()
    if tx.get(UsedIdTokenRow, key) is not None:
        return False
    tx.add(UsedIdTokenRow(jti_sha256=key, expires_at=expires_at))
    tx.flush()
    return True


def _publishers(tx: Transaction, *which: ColumnElement[bool] | bool) -> tuple[PublisherRecord, ...]:
    query = (
        select(PublisherRow, IssuerRow.name, PrincipalRow.name)
        .join(IssuerRow, col(IssuerRow.id) == col(PublisherRow.issuer_id))
        .join(PrincipalRow, col(PrincipalRow.id) == col(PublisherRow.principal_id))
        .where(*which)
        .order_by(col(PublisherRow.id))
    )
    return tuple(_publisher(row, issuer, account) for row, issuer, account in tx.exec(query))


def _issuer(row: IssuerRow) -> IssuerRecord:
    return IssuerRecord(row.id or 0, IssuerInfo.model_validate(row, from_attributes=True))


def _publisher(row: PublisherRow, issuer: str, account: str) -> PublisherRecord:
    info = PublisherInfo(
        id=row.id or 0,
        adapter=f"{row.namespace}/{row.name}",
        issuer=issuer,
        account=account,
        project_id=row.project_id,
        owner_id=row.owner_id,
        workflow=row.workflow,
        environment=row.environment,
        branch=row.branch,
        created_at=row.created_at,
        created_by=row.created_by,
    )
    rule = PublisherRule(row.project_id, row.owner_id, row.workflow, row.environment, row.branch)
    return PublisherRecord(info, rule, row.principal_id)
