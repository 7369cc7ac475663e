"""The first page of the description: the rules for every operation, and the groups of operations."""

from __future__ import annotations

from collections.abc import Iterator

from adaptry.core.errors import AdaptryError
from adaptry.registry import protocol
from adaptry_api import errors

_NEVER_SENT = {"invalid_bundle", "invalid_backup", "error"}
"""Codes of errors that only the command line raises."""

_WITHOUT_CLASS = {
    "method_not_allowed": (405, "The path exists, but does not accept this method."),
    "precondition_required": (428, "`If-Match` or `If-None-Match` is missing."),
    "internal": (500, "The server failed; its log has the details under the request's id."),
}

TAGS = {
    "about": "The server and the caller.",
    "search": "Finding versions.",
    "adapters": "Adapters: a name, and a series of versions under it.",
    "versions": "Versions of an adapter, selected by number, alias or digest.",
    "revisions": "Pushing versions, their manifests and their states.",
    "files": "The files of a revision.",
    "uploads": "Uploading the files of a version before it is pushed.",
    "aliases": "Aliases: names such as `prod` that move from version to version.",
    "metrics": "Metrics of a version.",
    "evidence": "Measurements of a version, with their results files.",
    "rollouts": "Moving an alias step by step, on a few workers first.",
    "commits": "Commits, branches and tags: an adapter's history, as clients of the Hub see it.",
    "bases": "Base models, identified by content.",
    "quotas": "Limits on storage and requests of namespaces and principals.",
    "publishers": "CI jobs that push without a stored token, and the issuers of their ID tokens.",
    "sign-in": "Users and groups of an identity provider, and tokens for CI jobs, as OAuth defines them.",
    "events": "Changes in the registry, as they happen.",
    "workers": "Inference engines' reports of loaded adapters, and recalls.",
    "jobs": "Long-running work, such as merges, carried out by runners.",
    "tokens": "Tokens: credentials of principals.",
    "principals": "Users, service accounts, workers and groups.",
    "access": "Grants, members of namespaces, and explanations of access decisions.",
    "audit": "The audit log: changes and denied requests, with proofs that nothing was rewritten.",
    "health": "Health checks and metrics, for monitoring.",
}

_TEXT = """
A registry for PEFT adapters: it stores and checks versions, and keeps aliases that name the live version.

## Authentication

Send a token as `Authorization: Bearer <token>`. `adaptry token create` creates one. A token has its
principal's rights, within its own limits. Requests for anything that the caller may not read get 404, as if
it did not exist.

## Names and refs

An adapter is `namespace/name`. A version of it is selected by its number (`3`), an alias (`prod`), `latest`,
or the digest of its revision (`sha256:` and 64 hexadecimal digits, or at least the first 12 of them).

## Pushing

1. For each file, `POST /adapters/{{namespace}}/{{name}}/uploads` with its SHA-256 and size, then
   `PATCH /uploads/{{id}}` with its bytes, and `POST /uploads/{{id}}/finish`.
2. `POST /adapters/{{namespace}}/{{name}}/revisions` with the manifest, which lists the files. Its form is
   canonical JSON: keys sorted, no spaces, empty fields left out, encoded as UTF-8. The SHA-256 of these bytes
   is the revision's digest.

An adapter of at most 8 MiB can be pushed with its files in one request:
`POST /adapters/{{namespace}}/{{name}}/revisions/with-files`.

## Pages

Lists come in pages of `limit` items (at most 200). Pass a page's `next` as `cursor` to get the following
page. The last page has no `next`.

## Concurrent changes

The `ETag` of an alias, a rollout or a version's state is its generation. Send it as `If-Match` with the
change. If someone else has changed the object in the meantime, the response is 409 or 412, and nothing
changes.

## Repeating a request

Requests that create something accept an `{key}` header. For a day, the same request with the same key gets
the same response, marked `{replay}: true`, and is not carried out twice.

## Errors

Every error is `application/problem+json` (RFC 9457). `code` does not change between releases; `detail` is a
sentence for people. With 429 and 503, `Retry-After` is the number of seconds to wait.

| status | code | meaning |
|---|---|---|
{codes}

## Versions

The server sends `{api}: {number}`, the version of this interface, with every response. New fields may appear
in responses; ignore those that you do not know. Unknown fields in requests are refused.
"""


def introduction() -> str:
    """The text, in Markdown."""
    rows = dict(_WITHOUT_CLASS)
    for kind in _kinds(AdaptryError):
        rows.setdefault(kind.code, (errors.status_of_class(kind), _first_sentence(kind)))
    ordered = sorted(rows.items(), key=lambda row: (row[1][0], row[0]))
    return _TEXT.strip().format(
        key=protocol.KEY_HEADER,
        replay=protocol.REPLAY_HEADER,
        codes="\n".join(f"| {status} | `{code}` | {meaning} |" for code, (status, meaning) in ordered),
        api=protocol.API_HEADER,
        number=protocol.API,
    )


def _kinds(kind: type[AdaptryError]) -> Iterator[type[AdaptryError]]:
    for inner in kind.__subclasses__():
        if inner.__module__ == AdaptryError.__module__ and inner.code not in _NEVER_SENT:
            yield inner
        yield from _kinds(inner)


def _first_sentence(kind: type[AdaptryError]) -> str:
    return " ".join((kind.__doc__ or "").partition("\n\n")[0].split())
