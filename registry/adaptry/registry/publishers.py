"""The publishers role: lets CI jobs push without a stored token.

An issuer is a trusted provider of ID tokens. A publisher names the jobs of an issuer that may push to one
adapter; each publisher acts as its own service account.
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
    """A provider of ID tokens at `url`, for exactly `audience`, with the claims of `kind`."""

    name: str
    url: str
    kind: IssuerKind
    audience: str
    created_at: datetime
    created_by: str


class IssuerRequest(AccessRequest):
    """An issuer to trust. `url` is the claim `iss` of its tokens, unchanged."""

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
    """Administrators manage issuers. An adapter's publishers are managed by principals who have
    `token.manage` and `member.manage` in its namespace and may push to it.
    """

    @abstractmethod
    def add_issuer(self, request: IssuerRequest) -> IssuerInfo:
        """Trusts an issuer. Raises `Invalid` for a malformed URL, `Conflict` (the name or the URL is used),
        `PermissionDenied`.
        """

    @abstractmethod
    def list_issuers(self) -> tuple[IssuerInfo, ...]:
        """Issuers in name order, for every caller who may read anything. Raises `PermissionDenied`."""

    @abstractmethod
    def remove_issuer(self, name: str) -> None:
        """Removes an issuer. Raises `NotFound`, `PermissionDenied`, and `Conflict` while publishers use
        it.
        """

    @abstractmethod
    def add(self, name: AdapterName, request: PublisherRequest) -> PublisherInfo:
        """Adds a publisher. The adapter need not exist: a job may create it. Adding the same publisher again
        returns the existing one.

        Raises `NotFound` (no such issuer), `Conflict` (the adapter has too many), `PermissionDenied`,
        whether the adapter exists or not.
        """

    @abstractmethod
    def list(self, name: AdapterName) -> tuple[PublisherInfo, ...]:
        """Publishers, oldest first. Raises `PermissionDenied`, whether the adapter exists or not."""

    @abstractmethod
    def remove(self, name: AdapterName, id: int) -> None:
        """Removes a publisher; its tokens are refused everywhere within five seconds. Raises `NotFound`,
        `PermissionDenied`.
        """
