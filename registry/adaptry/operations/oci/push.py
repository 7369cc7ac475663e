"""Pushes an artifact to an OCI registry, by the distribution protocol 1.1: missing blobs, manifests, and the
tag.

If a registry has no referrers API (its response to a manifest with a subject lacks `OCI-Subject`), the
subject's referrers are stored as an index under the tag `sha256-<hex>`, as the specification requires. Two
clients may write that tag at once, and neither can lock it, so it is read again, and written again if an
entry was lost. If an entry is lost after the last read, pushing again adds it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import InitVar, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import urllib3

from adaptry.compute.exporting.oci.artifact import INDEX, MANIFEST, Artifact, Blob, Descriptor
from adaptry.compute.exporting.oci.reference import OciReference
from adaptry.core.digest import Digest
from adaptry.core.errors import (
    Conflict,
    Invalid,
    NotFound,
    PermissionDenied,
    StorageFull,
    Unauthenticated,
    Unavailable,
)
from adaptry.core.http import open_pool
from adaptry.operations.oci.credentials import authorization_header, stored_login

_ANSWERS = {401: Unauthenticated, 403: PermissionDenied, 404: NotFound, 429: Unavailable, 507: StorageFull}
_MAX_ATTEMPTS = 5
_SECONDS = urllib3.Timeout(connect=10, read=300)
_MAX_INDEX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class ArtifactPushResult:
    """The location by digest. `is_listed_by_tag`: a tag, and not the registry, lists its subject's
    referrers.
    """

    place: OciReference
    descriptor: Descriptor
    is_listed_by_tag: bool


@dataclass
class OciRepository:
    """One repository. `config`: a Docker config with logins. `ca_bundle`: certificates (default: the
    system's).
    """

    reference: OciReference
    config: Path | None = None
    ca_bundle: InitVar[str | None] = None
    proxy: InitVar[str | None] = None
    _authorization: str | None = None

    def __post_init__(self, ca_bundle: str | None, proxy: str | None) -> None:
        self._pool = open_pool(self.reference.url, ca_bundle, proxy)

    def push(self, artifact: Artifact) -> ArtifactPushResult:
        """Pushes all blobs, the base's manifest, and the artifact under the reference's tag. Raises
        `Unavailable`, `Unauthenticated`, `PermissionDenied`, `NotFound`, `Invalid`; uploaded blobs are reused
        next time.
        """
        if artifact.base and artifact.base.descriptor.digest == (
            artifact.subject and artifact.subject.digest
        ):
            self._put(artifact.base, str(artifact.base.descriptor.digest))
        subject = self._put(artifact, self.reference.tag)
        is_by_tag = artifact.subject is not None and not subject
        if artifact.subject and is_by_tag:
            self._list_referrer(artifact.subject, artifact.descriptor)
        return ArtifactPushResult(self.reference, artifact.descriptor, is_by_tag)

    def descriptor_of(self, name: str) -> Descriptor:
        """The descriptor of the manifest for a tag or digest. Raises `NotFound`."""
        answer = self._ask("GET", f"/manifests/{name}", headers={"Accept": f"{MANIFEST}, {INDEX}"})
        return Descriptor(
            answer.headers.get("Content-Type", MANIFEST), Digest.of(answer.data), len(answer.data)
        )

    def _put(self, artifact: Artifact, name: str) -> bool:
        """Pushes a manifest; returns whether the registry itself recorded its subject."""
        for blob in artifact.blobs:
            self._upload(blob)
        answer = self._ask(
            "PUT", f"/manifests/{name}", body=artifact.manifest, headers={"Content-Type": MANIFEST}
        )
        return "OCI-Subject" in answer.headers

    def _upload(self, blob: Blob) -> None:
        digest = str(blob.descriptor.digest)
        with contextlib.suppress(NotFound):
            self._ask("HEAD", f"/blobs/{digest}")
            return
        started = self._ask("POST", "/blobs/uploads/")
        where = urljoin(f"{self.reference.url}/blobs/uploads/", started.headers["Location"])
        address = f"{where}{'&' if '?' in where else '?'}digest={digest}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.descriptor.size)}
        self._call("PUT", address, body=blob.chunks(), headers=headers)

    def _list_referrer(self, subject: Descriptor, referrer: Descriptor) -> None:
        tag = f"sha256-{subject.digest.hex}"
        for _ in range(_MAX_ATTEMPTS):
            entries = self._referrers(tag)
            if any(entry.get("digest") == str(referrer.digest) for entry in entries):
                return
            index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*entries, referrer.as_json()]}
            self._ask(
                "PUT", f"/manifests/{tag}", body=json.dumps(index).encode(), headers={"Content-Type": INDEX}
            )
        if not any(entry.get("digest") == str(referrer.digest) for entry in self._referrers(tag)):
            raise Conflict(
                f"other clients keep writing {tag} of {self.reference.repository}; push again to list it"
            )

    def _referrers(self, tag: str) -> list[dict[str, Any]]:
        """(`Any`: JSON.)"""
        try:
            answer = self._ask("GET", f"/manifests/{tag}", headers={"Accept": INDEX})
        except NotFound:
            return []
        try:
            entries = json.loads(answer.data)["manifests"] if len(answer.data) <= _MAX_INDEX_BYTES else None
        except (ValueError, LookupError, TypeError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise Invalid(
                f"{tag} of {self.reference.repository} is not an index of referrers; remove it there,"
                " and push again"
            )
        return entries

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        return self._call(method, self.reference.url + path, body, headers)

    def _call(
        self,
        method: str,
        address: str,
        body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One request; if challenged before a body is sent, repeats it with credentials."""
        answer = self._request(method, address, body, headers)
        if answer.status == 401 and not isinstance(body, Iterator):
            challenge = answer.headers.get("WWW-Authenticate", "")
            login = stored_login(self.config, self.reference.host)
            self._authorization = authorization_header(self._pool, challenge, login, self.reference)
            answer = self._request(method, address, body, headers)
        if answer.status >= 400:
            raise self._error(method, answer)
        return answer

    def _request(
        self, method: str, address: str, body: bytes | Iterator[bytes] | None, headers: dict[str, str] | None
    ) -> urllib3.BaseHTTPResponse:
        is_ours = address.startswith(self.reference.url.split("/v2/")[0] + "/")
        authorization = {"Authorization": self._authorization} if self._authorization and is_ours else {}
        try:
            return self._pool.request(
                method,
                address,
                body=body,
                headers={**(headers or {}), **authorization},
                timeout=_SECONDS,
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.SSLError as error:
            raise Unavailable(
                f"cannot trust {self.reference.host}: {error}"
                " (ADAPTRY_CA_BUNDLE names the certificates to trust)"
            ) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unavailable(
                f"{self.reference.host} does not answer ({error}); is that the registry's address?"
            ) from error

    def _error(self, method: str, answer: urllib3.BaseHTTPResponse) -> Exception:
        kind = _ANSWERS.get(answer.status, Unavailable if answer.status >= 500 else Invalid)
        return kind(
            f"{self.reference.host} answered {method} for {self.reference.repository} with {answer.status}:"
            f" {_error_text(answer)}"
        )


def _error_text(answer: urllib3.BaseHTTPResponse) -> str:
    """The registry's error message."""
    try:
        errors = json.loads(answer.data)["errors"]
        return "; ".join(f"{error.get('code')} {error.get('message', '')}".strip() for error in errors)[:300]
    except (ValueError, LookupError, TypeError, AttributeError):
        return answer.data[:200].decode(errors="replace") or "no reason given"
