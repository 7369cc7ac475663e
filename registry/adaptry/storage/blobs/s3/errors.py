"""What an S3 server's refusals mean to us: one function, so that no botocore error leaves this package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from adaptry.core.errors import AdaptryError, NotFound, StorageFull, Unavailable

if TYPE_CHECKING:
    from adaptry.storage.blobs.s3.location import S3Location

_AWAY = (
    "the registry's files cannot be reached just now; its administrator has the details,"
    " try again in a moment"
)
_REMEDIES = {
    "InvalidAccessKeyId": "is AWS_ACCESS_KEY_ID (or what else boto3 reads) one of that server's?",
    "SignatureDoesNotMatch": "is AWS_SECRET_ACCESS_KEY (or what else boto3 reads) the one of that key?",
    "RequestTimeTooSkewed": (
        "this machine's clock and the server's differ by more than some minutes: set them"
    ),
    "ExpiredToken": "the session they were for is over: get new ones",
}
_FULL = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage")


def reject_html(parsed: dict[str, Any], http_response: Any, **_: Any) -> None:
    """Raises `Unavailable` if a balancer or login page answered 200 instead of S3. (`Any`: botocore's.)"""
    kind = str(http_response.headers.get("content-type", ""))
    if http_response.status_code < 300 and kind.startswith("text/html"):
        raise Unavailable(
            "a web page came where an S3 server's answer was expected;"
            " is something in between answering for it?"
        )


def require_answer(answer: Any, name: str, location: S3Location) -> Any:
    """The answer, if what an S3 server always says is in it. Raises `Unavailable`. (`Any`: botocore's.)"""
    if not answer.get(name):
        raise Unavailable(
            f"{location} did not answer as an S3 server does ({name} is missing); try again in a moment",
            public_message=_AWAY,
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
            " or what else boto3 reads",
            public_message=_AWAY,
        ) from error
    except (BotoCoreError, ResponseParserError, HTTPError) as error:
        raise Unavailable(
            f"{location} does not answer ({error}); is its endpoint right? if so, try again in a moment",
            public_message=_AWAY,
        ) from error
    except (ValueError, LookupError) as error:  # a time that is none, or none at all: botocore lets it pass
        raise Unavailable(
            f"{location} answered what no S3 server does ({error});"
            " is something in between? try again in a moment",
            public_message=_AWAY,
        ) from error


def _meaning(error: ClientError, location: S3Location) -> AdaptryError:
    status, code = http_status(error), s3_error_code(error)
    if code == "NoSuchBucket":
        return Unavailable(
            f"there is no bucket {location.bucket}; make it, or name another place for blobs",
            public_message=_AWAY,
        )
    if status == 404:
        return NotFound(f"no such object in {location}")
    if status == 507 or code in _FULL:
        return StorageFull(
            f"no space left in {location}; free some and push again, what was stored is untouched",
            public_message=(
                "no space left in the registry; free some and push again, what was stored is untouched"
            ),
        )
    if status in (401, 403):
        remedy = _REMEDIES.get(code, "they need to get, put, list and delete objects there")
        return Unavailable(
            f"{location} refuses these credentials ({code}); {remedy}",
            public_message=_AWAY,
        )
    return Unavailable(f"{location} answered {status} {code}; try again in a moment", public_message=_AWAY)
