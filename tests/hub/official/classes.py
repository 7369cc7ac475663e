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
        " out, and refuses an upload of nothing else."
    ),
    "private": (
        "Creates a repository without a visibility and reads it without a token; new adapters here are"
        " private, on the Hub they are public."
    ),
    "wording": (
        "Compares the Hub's own text of an error, or the order of its checks; status and exception are right."
    ),
    "choice": (
        "Expects a behaviour that the registry deliberately does not have: a branch with a tag's name, a"
        " request id chosen by the caller."
    ),
    "hub-data": (
        "Needs users, organisations or repositories of the Hub or of its test site, or that site's host name."
    ),
    "environment": (
        "Fails without any server: it needs other versions of packages, a user who is not root, or the"
        " network."
    ),
    "fault": "A known fault of Adaptry, not fixed yet.",
}
