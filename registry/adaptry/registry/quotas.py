"""The quotas role: limits on storage and requests for namespaces and principals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field

from adaptry.core.quotas import UNLIMITED, QuotaScope, QuotaSubject
from adaptry.core.refs import AdapterName
from adaptry.registry.access import AccessRequest
from adaptry.registry.records import Value

Limit = Annotated[int, Field(ge=0, le=UNLIMITED)]
RequestLimit = Annotated[int, Field(ge=1, le=UNLIMITED)]


class QuotaInfo(Value):
    """The limits of a namespace or a principal, and what it uses of them.

    `own` names the limits that are set for this name; the other limits are defaults. None means no limit.
    `reserved` is the bytes that open uploads may still add.
    """

    scope: QuotaScope
    name: str
    own: tuple[Literal["bytes", "versions", "uploads", "requests"], ...] = ()
    bytes: int | None = None
    versions: int | None = None
    uploads: int | None = None
    requests: int | None = None
    used_bytes: int = 0
    reserved_bytes: int = 0
    used_versions: int = 0
    open_uploads: int = 0


class QuotaRequest(AccessRequest):
    """The new limits of a name, which replace those that were set for it.

    The name `*` stands for every name of the scope without its own limit. None leaves a limit unset; 2⁵³-1
    exempts a name from the limit for `*`. `requests` is per minute.
    """

    scope: QuotaScope
    name: str = Field(min_length=1, max_length=193)
    bytes: Limit | None = None
    versions: Limit | None = None
    uploads: Limit | None = None
    requests: RequestLimit | None = None


class Quotas(ABC):
    """Administrators set limits; members of a namespace see its limits, and all principals see their own."""

    @abstractmethod
    def list(self, subject: QuotaSubject | None = None) -> tuple[QuotaInfo, ...]:
        """The quotas of one namespace or principal. Without `subject`, administrators get all limits that
        were set, and others their own.

        Raises `NotFound` for a principal that does not exist, `PermissionDenied`.
        """

    @abstractmethod
    def set(self, request: QuotaRequest) -> QuotaInfo:
        """Sets limits. Stored data and open uploads are kept, even if they exceed the limits.

        Raises `Invalid` for a name that no namespace can have, `NotFound`, `PermissionDenied`.
        """

    @abstractmethod
    def remove(self, subject: QuotaSubject) -> None:
        """Removes the limits of the name. Raises `NotFound` if none were set, `PermissionDenied`."""

    @abstractmethod
    def require_room(self, name: AdapterName, size: int) -> None:
        """Raises `QuotaExceeded`, or `Busy` while open uploads reserve the room, if an adapter may not get
        `size` bytes more. For callers that receive bytes before they open an upload.
        """
