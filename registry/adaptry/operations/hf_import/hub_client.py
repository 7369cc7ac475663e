"""Queries a hub through `huggingface_hub`: revisions with their files, and lists of repositories.

For a file, this reads only the location and the expected digest: the hub has the SHA-256 of large files and
git's id of small ones. All errors are translated to our classes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from adaptry.core.digest import Digest
from adaptry.core.errors import MissingDependency, NotFound, PermissionDenied, Unauthenticated, Unavailable
from adaptry.core.lazy_dataclass import dataclass
from adaptry.operations.hf_import.hub_names import HubRef

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class HubFileInfo:
    """A file of a revision. Large files have a `sha256`, all files a `git_id` (git's SHA-1)."""

    path: str
    size: int
    sha256: Digest | None
    git_id: str | None


@dataclass(frozen=True, slots=True)
class HubRepoRevision:
    """A commit of a repository, by its permanent id `commit`. `tags` are the hub's tags of the repository."""

    repository: str
    commit: str
    files: Mapping[str, HubFileInfo]
    tags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"hf:{self.repository}@{self.commit[:12]}"


@dataclass(frozen=True, slots=True)
class HubRepoInfo:
    """A repository in a list: its newest commit and the names of its files, if the hub provides them."""

    repository: str
    commit: str | None
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DownloadLocation:
    """The current URL of a file, and the headers to send."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HubClient:
    """A client of the hub at `endpoint`."""

    endpoint: str
    token: str | None
    api: HfApi

    def resolve(self, ref: HubRef) -> HubRepoRevision:
        """The revision that a ref selects now. Raises `NotFound`, `PermissionDenied` (gated),
        `Unavailable`.
        """
        with _translate_errors(self, str(ref)):
            info = self.api.model_info(ref.repository, revision=ref.revision, files_metadata=True)
        files = {each.rfilename: _file(each) for each in info.siblings or ()}
        if info.sha is None:
            raise Unavailable(f"{self.endpoint} does not return the commit of {ref}; try again")
        return HubRepoRevision(info.id, info.sha, files, tuple(info.tags or ()))

    def list_models(
        self, author: str | None, search: str | None, filters: tuple[str, ...], limit: int
    ) -> Iterator[HubRepoInfo]:
        """Up to `limit` matching model repositories. Raises `Unavailable`."""
        with _translate_errors(self, author or "its models"):
            found = self.api.list_models(
                author=author, search=search, filter=list(filters) or None, limit=limit, full=True
            )
            for info in found:
                yield HubRepoInfo(
                    info.id, info.sha, tuple(sorted(each.rfilename for each in info.siblings or ()))
                )

    def collection(self, slug: str) -> Iterator[str]:
        """The models of a collection. Raises the errors of `resolve`."""
        with _translate_errors(self, slug):
            for item in self.api.get_collection(slug).items:
                if item.item_type == "model":
                    yield item.item_id

    def locate_file(self, revision: HubRepoRevision, path: str) -> DownloadLocation:
        """The location of a file. Raises the errors of `resolve`."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(revision.repository, path, revision=revision.commit, endpoint=self.endpoint)
        with _translate_errors(self, f"{path} of {revision}"):
            found = get_hf_file_metadata(url, token=self.token or False)
        is_own = found.location.startswith(f"{self.endpoint}/")  # other storage must not get the token
        send = {"Authorization": f"Bearer {self.token}"} if self.token and is_own else {}
        return DownloadLocation(found.location, send)


def open_hub() -> HubClient:
    """The hub and token from HF_ENDPOINT, HF_TOKEN and `hf auth login`. Raises `MissingDependency`."""
    try:
        from huggingface_hub import HfApi, get_token
    except ModuleNotFoundError as error:
        raise MissingDependency(f"accessing a hub needs {error.name}: pip install 'adaptry[hub]'") from error
    token = get_token()
    api = HfApi(token=token or False, library_name="adaptry")
    return HubClient(api.endpoint.rstrip("/"), token, api)


def _file(sibling: Any) -> HubFileInfo:
    """A file from the client's record. (`Any`: its class differs between versions of the client.)"""
    sha256 = Digest.parse(f"sha256:{sibling.lfs['sha256']}") if sibling.lfs else None
    return HubFileInfo(sibling.rfilename, sibling.size or 0, sha256, sibling.blob_id)


@contextmanager
def _translate_errors(hub: HubClient, what: str) -> Iterator[None]:
    """Translates the client's errors to ours. It has a class per status, and its HTTP library has changed
    twice.
    """
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise PermissionDenied(
            f"{what} is gated: accept its terms at {hub.endpoint}, with the account of this token"
        ) from error
    except (errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise NotFound(f"{what} does not exist at {hub.endpoint}: unknown revision or file") from error
    except errors.RepositoryNotFoundError as error:
        whose = "this token (HF_TOKEN) may not read it" if hub.token else "it needs a token (HF_TOKEN)"
        raise NotFound(f"{what} does not exist at {hub.endpoint}, or {whose}") from error
    except errors.HfHubHTTPError as error:
        if error.response.status_code == _UNAUTHORIZED:
            raise Unauthenticated(f"{hub.endpoint} does not accept this token (HF_TOKEN)") from error
        raise Unavailable(f"{hub.endpoint} did not answer a request for {what}: {error}") from error
    except _of_the_network() as error:
        raise Unavailable(f"{hub.endpoint} did not answer a request for {what}: {error}") from error


def _of_the_network() -> tuple[type[Exception], ...]:
    """The exceptions of the loaded HTTP library for a failed connection (in `requests`, an OSError)."""
    loaded = (sys.modules.get(name) for name in ("httpx", "httpx2"))
    return (OSError, *(module.TransportError for module in loaded if module))
