"""The publishers role of a local registry: issuers and publishers."""

from __future__ import annotations

from adaptry.core.access.ci_jobs import PublisherRule
from adaptry.core.access.grants import Grant
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.outgoing_requests.url import OutgoingUrl
from adaptry.core.refs import AdapterName, require_value
from adaptry.registry.publishers import (
    IssuerInfo,
    IssuerRequest,
    PublisherInfo,
    PublisherRequest,
    Publishers,
)
from adaptry.storage.catalog import grants, principals, publishers
from adaptry.storage.catalog.audit_log.recorder import AuditTarget
from adaptry.storage.catalog.database import Transaction
from adaptry.storage.catalog.principals import PrincipalRecord
from adaptry.storage.catalog.publishers import IssuerRecord
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.principals import require_administrator, require_in_namespace

MAX_PUBLISHERS = 32
"""Publishers of one adapter."""
_PERMISSIONS = ("viewer", "push")


@dataclass(frozen=True)
class LocalPublishers(Publishers):
    """The issuers and publishers of a local registry."""

    context: RegistryContext

    def add_issuer(self, request: IssuerRequest) -> IssuerInfo:
        require_administrator(self.context, f"trust the issuer {request.name}")
        _check_issuer(request)
        with self.context.write() as tx:
            for found in (
                publishers.find_issuer(tx, name=request.name),
                publishers.find_issuer(tx, url=request.url),
            ):
                if found is not None:
                    raise Conflict(
                        f"the issuer {found.info.name} exists already, with the URL {found.info.url};"
                        f" remove it first: adaptry issuer rm {found.info.name}"
                    )
            added = publishers.insert_issuer(tx, request, self.context.clock(), self.context.identity.name)
            self.context.record(tx, "issuer.add", AuditTarget(request.name), after=request.model_dump())
            return added.info

    def list_issuers(self) -> tuple[IssuerInfo, ...]:
        identity = self.context.identity
        if not (identity.is_member or identity.may_administer):
            raise PermissionDenied(
                f"{identity.name} may not list issuers; log in with a token that has read access"
            )
        with self.context.catalog.read() as tx:
            return publishers.issuers(tx)

    def remove_issuer(self, name: str) -> None:
        require_administrator(self.context, f"remove the issuer {name[:64]}")
        with self.context.write() as tx:
            found = _existing_issuer(tx, name)
            if publishers.has_publishers(tx, found):
                raise Conflict(
                    f"publishers use the issuer {name}; remove them first (adaptry publisher ls NAME, adaptry"
                    " publisher rm NAME ID)"
                )
            publishers.remove_issuer(tx, found)
            was = found.info.model_dump(include=set(IssuerRequest.model_fields))
            self.context.record(tx, "issuer.remove", AuditTarget(name), before=was)

    def add(self, name: AdapterName, request: PublisherRequest) -> PublisherInfo:
        self._require_managing(name)
        rule = PublisherRule(
            request.project_id, request.owner_id, request.workflow, request.environment, request.branch
        )
        with self.context.write() as tx:
            issuer = _existing_issuer(tx, request.issuer)
            existing = publishers.of_adapter(tx, name)
            for one in existing:
                if (one.info.issuer, one.rule) == (issuer.info.name, rule):
                    return one.info
            if len(existing) >= MAX_PUBLISHERS:
                raise Conflict(
                    f"{name} has {MAX_PUBLISHERS} publishers, the most that an adapter can have; remove one"
                )
            account, now, by = (
                self._create_account(tx, name),
                self.context.clock(),
                self.context.identity.name,
            )
            added = publishers.insert(tx, name, issuer, account, rule, now, by)
            self.context.record(tx, "publisher.add", _target(name), after=_facts(added.info))
            return added.info

    def list(self, name: AdapterName) -> tuple[PublisherInfo, ...]:
        self._require_managing(name)
        with self.context.catalog.read() as tx:
            return tuple(one.info for one in publishers.of_adapter(tx, name))

    def remove(self, name: AdapterName, id: int) -> None:
        self._require_managing(name)
        with self.context.write() as tx:
            found = next((one for one in publishers.of_adapter(tx, name) if one.info.id == id), None)
            if found is None:
                raise NotFound(f"{name} has no publisher {id}; `adaptry publisher ls {name}` shows them")
            publishers.remove(tx, found)
            account = principals.by_key(tx, found.principal)
            grants.remove(tx, [one.info.id for one in grants.of_principal(tx, account)])
            if account.info.disabled_at is None:
                principals.set_disabled(tx, account, self.context.clock())
            self.context.record(tx, "publisher.remove", _target(name), before=_facts(found.info))

    def _create_account(self, tx: Transaction, name: AdapterName) -> PrincipalRecord:
        """A service account that may push to the adapter, and nothing else."""
        now, by = self.context.clock(), self.context.identity.name
        account_name = publishers.free_account_name(tx, name.namespace)
        account = principals.insert(tx, "service-account", account_name, name.namespace, now, by)
        for permission in _PERMISSIONS:
            grants.add(tx, account, Grant(permission, Resource(name.namespace, name.name)), now, by)
        return account

    def _require_managing(self, name: AdapterName) -> None:
        """Raises `PermissionDenied` if the caller may not manage publishers, whether or not the adapter
        exists.
        """
        require_value(name)
        for action in ("token.manage", "member.manage"):
            require_in_namespace(self.context, action, name.namespace)
        self.context.require("push", name)


def _check_issuer(request: IssuerRequest) -> None:
    """Checks an issuer's settings. Raises `Invalid`."""
    OutgoingUrl.parse(request.url)
    if "?" in request.url:
        raise Invalid(f"an issuer's URL must have no query: {request.url[:200]!a}")
    if not (request.audience.isascii() and request.audience.isprintable()):
        raise Invalid(
            "an audience may have only printable ASCII characters; use the address of this registry"
        )


def _existing_issuer(tx: Transaction, name: str) -> IssuerRecord:
    found = publishers.find_issuer(tx, name=name)
    if found is None:
        raise NotFound(
            f"no issuer {name[:64]!a}; `adaptry issuer ls` shows the trusted ones, which administrators add"
        )
    return found


def _target(name: AdapterName) -> AuditTarget:
    return AuditTarget(str(name), name.namespace)


def _facts(info: PublisherInfo) -> dict[str, object]:
    hidden = {"adapter", "created_at", "created_by"}
    return info.model_dump(exclude=hidden, exclude_none=True)
