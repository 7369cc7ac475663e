"""A span for each call of a bucket's API, including retries, made from botocore's own events."""

from __future__ import annotations

from typing import Any

from adaptry.core import tracing

_SPAN = "adaptry_span"  # in botocore's context of a call


def trace_calls(client: Any) -> None:
    """Registers the spans. Call it before other handlers are registered, since a handler that raises an error
    ends the call. (`Any`: boto3 creates its clients at run time, and passes untyped arguments to handlers.)
    """
    client.meta.events.register("before-call.s3", _begin)
    client.meta.events.register("after-call.s3", _end)
    client.meta.events.register("after-call-error.s3", _fail)


def _begin(model: Any, context: dict[str, Any], **_: Any) -> None:
    attributes = {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": str(model.name)}
    opened = tracing.span(f"S3 {model.name}", attributes, kind="client", seconds=tracing.BUCKET_SECONDS)
    context[_SPAN] = opened, opened.__enter__()


def _end(http_response: Any, context: dict[str, Any], **_: Any) -> None:
    opened, span = context.pop(_SPAN)
    span.set({"http.response.status_code": int(http_response.status_code)})
    opened.__exit__(None, None, None)


def _fail(exception: BaseException, context: dict[str, Any], **_: Any) -> None:
    opened, span = context.pop(_SPAN)
    span.fail(exception)
    opened.__exit__(None, None, None)
