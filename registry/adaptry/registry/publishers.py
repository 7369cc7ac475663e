"""The role of a registry that lets CI jobs publish without a stored token: issuers and publishers.

An issuer is a provider of ID tokens that the registry trusts. A publisher names the jobs of one that may push
to one adapter; each publisher acts as a service account of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import datetime
from typing import Annotated, Self

from pydantic import Field, model_validator

from adaptry.core.access.ci_jobs import IssuerKind
from adaptry.core.refs import AdapterName
from adaptry.registry.access import AccessRequest
from adaptry.registry.records import Value

ProjectId = Annotated[str, Field(pattern=r"^[0-9]{1,20}$")]
IssuerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
_Ref = Annotated[str, Field(min_length=1, max_length=255)]


class IssuerInfo(Value):
    """A provider of ID tokens at `url`, for `audience` exactly, with the claims of `kind`."""

    name: str
    url: str
    kind: IssuerKind
    audience: str
    created_at: datetime
    created_by: str


class IssuerRequest(AccessRequest):
    """An issuer to trust. `url` is the claim `iss` of its tokens, without a change."""

    name: IssuerName
    url: str = Field(min_length=8, max_length=255)
    kind: IssuerKind
    audience: str = Field(min_length=1, max_length=255)


class PublisherInfo(Value):
    """Jobs that may push to `adapter`, as the service account `account`."""

    id: int
    adapter: str
    issuer: str
    account: str
    project_id: str
    owner_id: str
    workflow: str
    environment: str | None = None
    branch: str | None = None
    created_at: datetime
    created_by: str


class PublisherRequest(AccessRequest):
    """Jobs that may push: those of one workflow file of a project, in an environment, on a branch, or both.

    `project_id` and `owner_id` are the claims `repository_id` and `repository_owner_id` of GitHub, and
    `project_id` and `namespace_id` of GitLab: numbers, which no other project ever gets. `workflow` is the
    path of the file that defines the job, such as `.github/workflows/release.yml` or `.gitlab-ci.yml`.
    """

    issuer: IssuerName
    project_id: ProjectId
    owner_id: ProjectId
    workflow: _Ref
    environment: _Ref | None = None
    branch: _Ref | None = None

    @model_validator(mode="after")
    def _is_narrow(self) -> Self:
        if self.environment is None and self.branch is None:
            raise ValueError("name an environment, a branch, or both: otherwise every branch could publish")
        return self


class Publishers(ABC):
    """Administrators manage issuers. Who has `token.manage` and `member.manage` in a namespace, and may push
    to the adapter, manages its publishers.
    """

    @abstractmethod
    def add_issuer(self, request: IssuerRequest) -> IssuerInfo:
        """Raises `Invalid` for a URL that is none, `Conflict` (the name or the URL is used),
        `PermissionDenied`.
        """

    @abstractmethod
    def list_issuers(self) -> tuple[IssuerInfo, ...]:
        """In name order, for everybody who may read anything. Raises `PermissionDenied`."""

    @abstractmethod
    def remove_issuer(self, name: str) -> None:
        """Raises `NotFound`, `PermissionDenied`, and `Conflict` while publishers use it."""

    @abstractmethod
    def add(self, name: AdapterName, request: PublisherRequest) -> PublisherInfo:
        """The adapter need not exist: a job may create it. Adding the same again answers with what is there.

        Raises `NotFound` (no such issuer), `Conflict` (the adapter has too many), `PermissionDenied`,
        whether the adapter exists or not.
        """

    @abstractmethod
    def list(self, name: AdapterName) -> tuple[PublisherInfo, ...]:
        """Oldest first. Raises `PermissionDenied`, whether the adapter exists or not."""

    @abstractmethod
    def remove(self, name: AdapterName, id: int) -> None:
        """Its tokens are refused everywhere within five seconds. Raises `NotFound`, `PermissionDenied`."""
