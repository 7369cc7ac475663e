"""Why a test of Hugging Face's suite fails here: one class for each listed failure."""

from __future__ import annotations

CLASSES = {
    "repository-kind": "Needs a dataset, a Space or a kernel; a registry of adapters keeps models only.",
    "feature": "Needs a service of the Hub that is not a registry's: discussions and pull requests, buckets, collections, "
    "webhooks, likes, gated repositories, OAuth, inference.",
    "file-kind": "Uploads files that no adapter has (`file.txt`, `lfs.bin`); the registry leaves them out, and refuses an upload of "
    "nothing else.",
    "private": "Reads without a token what it created without a visibility; a new adapter here is private, on the Hub it is public.",
    "wording": "Compares the Hub's own text of an error, or the order of its checks; status and exception are right.",
    "choice": "Expects what is decided otherwise here: a branch with the name of a tag, a request id that the caller chose.",
    "hub-data": "Needs users, organisations or repositories of the Hub or of its test site, or that site's host name.",
    "environment": "Fails without any server: it needs other versions of packages, a user who is not root, or the network.",
    "fault": "A fault of ours that is known and not mended yet.",
}
