"""The actions that can be granted, each with a description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Action = Literal[
    "read",
    "push",
    "evidence.add",
    "alias.move",
    "state.set",
    "approve",
    "delete",
    "job.run",
    "inference.authorize",
    "worker.report",
    "member.manage",
    "policy.manage",
    "policy.override",
    "token.manage",
    "webhook.manage",
    "admin",
]

ACTIONS: Mapping[Action, str] = {
    "read": "see adapters, versions and their history, and download files; every other action needs it too",
    "push": "create adapters; push versions, commits, branches and tags; edit descriptions and tags",
    "evidence.add": "log metrics of a version; add and withdraw evidence, and upload its files",
    "alias.move": "create, move and remove aliases; start and control rollouts",
    "state.set": "change a version's state, read the files of a quarantined one, change visibility",
    "approve": "approve that an alias moves to a version",
    "delete": "delete an adapter, or rename it",
    "job.run": "submit, cancel and retry jobs and schedules",
    "inference.authorize": "check who may use adapters for inference, as a gateway; does not need read",
    "worker.report": "report what an engine has loaded",
    "member.manage": "add and remove members and grants of a namespace",
    "policy.manage": "set and remove policies of aliases; push despite blocking findings, undo a"
    " revocation, read revoked files",
    "policy.override": "move an alias, with a reason, although its policy's conditions are not met",
    "token.manage": "create service accounts of a namespace; create and revoke their tokens",
    "webhook.manage": "add, change and remove the webhooks of a namespace, and see their deliveries",
    "admin": "on `*` only: every action everywhere, users, groups, bases, and data without a namespace",
}
