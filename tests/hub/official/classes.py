"""Why a test of Hugging Face's suite fails here: one class for each listed failure."""

from __future__ import annotations

CLASSES = {
    "repository-kind": "Needs a dataset, a Space or a kernel; a registry of adapters has only models.",
    "feature": (
        "Needs a service of the Hub that a registry does not offer: discussions and pull requests, buckets,"
        " collections, webhooks, likes, gated repositories, OAuth, inference."
    ),
    "file-kind": (
        "Uploads files that do not belong to an adapter (`file.txt`, `lfs.bin`); the registry leaves them"
        " out, and refuses an upload that has no others."
    ),
    "private": (
        "Creates a repository without a visibility and reads it without a token; new repositories are"
        " private here and public on the Hub."
    ),
    "wording": (
        "Expects the Hub's exact error message, or the order of its checks; status and exception are right."
    ),
    "choice": (
        "Expects a behaviour that the registry deliberately does not have: a branch with a tag's name, a"
        " request id chosen by the caller."
    ),
    "hub-data": (
        "Needs users, organisations or repositories of the Hub or its test site, or that site's host name."
    ),
    "environment": (
        "Fails whatever the server does: needs other versions of packages, a user other than root, or the"
        " network."
    ),
    "fault": "A known bug in Adaptry, not fixed yet.",
}
