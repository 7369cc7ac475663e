"""Translates an S3 server's errors into ours in one function: no botocore error leaves this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from adaptry.core.errors import FULL_REMEDY, AdaptryError, NotFound, StorageFull, Unavailable

if TYPE_CHECKING:
    from adaptry.storage.blobs.s3.location import S3Location

_NOT_ANSWERING = (
    "the registry's files are temporarily unreachable; try again in a moment (the server's log has the"
    " details)"
)
_REMEDIES = {
    "InvalidAccessKeyId": "is AWS_ACCESS_KEY_ID (or another source of boto3) a key of that server?",
    "SignatureDoesNotMatch": "is AWS_SECRET_ACCESS_KEY (or another source of boto3) the secret of that key?",
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's differ by more than a few minutes: set them"
    ),
    "ExpiredToken": "their session has expired: get new ones",
}
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage")


def reject_html(parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
    """Raises `Unavailable` if a web page or load balancer answered instead of S3. (`Any`: botocore's.)"""
    kind = str(http_response.headers.get("content-type", ""))
    if http_response.status_code < 300 and kind.startswith("text/html"):
        raise Unavailable(
            "got a web page instead of a response of an S3 server; does a proxy answer in its place?"
        )


def require_answer(answer: Any, name: str, location: S3Location) -> Any:
    """The answer, if it has a field that all S3 servers send. Raises `Unavailable`. (`Any`: botocore's.)"""
    if not answer.get(name):
        raise Unavailable(
            f"{location} did not answer as an S3 server does ({name} is missing); try again in a moment",
            public_message=_NOT_ANSWERING,
        )
    return answer


def http_status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def s3_error_code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated_errors(location: S3Location) -> Iterator[None]:
    """Raises `NotFound` (no such object), `StorageFull`, or `Unavailable` with what to do."""
    try:
        yield
    except ClientError as error:
        raise _meaning(error, location) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Unavailable(
            f"no credentials for {location}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            " or another source that boto3 reads",
            public_message=_NOT_ANSWERING,
        ) from error
    except (BotoCoreError, ResponseParserError, HTTPError) as error:
        raise Unavailable(
            f"{location} does not answer ({error}); is its endpoint right? if so, try again in a moment",
            public_message=_NOT_ANSWERING,
        ) from error
    except (ValueError, LookupError) as error:  # a malformed or missing time, which botocore does not check
        raise Unavailable(
            f"{location} sent a response that does not follow the S3 protocol ({error});"
            " is a proxy in between? Try again in a moment",
            public_message=_NOT_ANSWERING,
        ) from error


def _meaning(error: ClientError, location: S3Location) -> AdaptryError:
    status, code = http_status(error), s3_error_code(error)
    if code == "NoSuchBucket":
        return Unavailable(
            f"there is no bucket {location.bucket}; create it, or pass another location for blobs",
            public_message=_NOT_ANSWERING,
        )
    if status == 404:
        return NotFound(f"no such object in {location}")
    if status == 507 or code in _FULL:
        return StorageFull(
            f"no space left in {location}; {FULL_REMEDY}",
            public_message=f"no space left in the registry; {FULL_REMEDY}",
        )
    if status in (401, 403):
        remedy = _REMEDIES.get(code, "they need to get, put, list and delete objects there")
        return Unavailable(
            f"{location} refuses these credentials ({code}); {remedy}",
            public_message=_NOT_ANSWERING,
        )
    return Unavailable(
        f"{location} answered {status} {code}; try again in a moment", public_message=_NOT_ANSWERING
    )
