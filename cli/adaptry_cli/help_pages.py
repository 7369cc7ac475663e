"""The documentation page of each command, which `--help` links to."""

from __future__ import annotations

from collections.abc import Mapping

_PAGES: Mapping[str, str] = {
    "evidence": "evaluations", "eval": "evaluations", "open": "pages",
    "import": "importing", "copy": "mirrors", "mirror": "mirrors", "bundle": "mirrors",
    "events": "events", "diff": "comparing", "similar": "comparing", "inspect": "formats", "check": "checks",
    "deprecate": "states", "yank": "states", "quarantine": "states", "revoke": "states", "recall": "states",
    "restore": "backup", "backup": "backup",
    "merge": "merging", "verify-merge": "verifying", "combine": "combining", "stack": "combining",
    "extract": "converting", "convert": "converting", "resize": "converting",
    "runtime": "runtimes", "export": "exporting", "follow": "following", "cache": "following",
    "probe": "runtimes", "workers": "following", "rollout": "following",
    "jobs": "jobs", "work": "jobs", "runners": "jobs",
    "serve": "deploying", "uploads": "deploying", "migrate": "postgresql",
    "token": "permissions", "user": "permissions", "service-account": "permissions", "group": "permissions",
    "member": "permissions", "quota": "limits", "grant": "permissions", "access": "permissions",
    "admin": "permissions", "audit": "audit", "webhook": "webhooks",
    "policy": "gates", "approve": "gates", "promotion": "gates",
    "verify": "repair", "repair": "repair", "gc": "gc", "login": "rest",
    "publisher": "publishing", "issuer": "publishing", "sso": "signing-in",
}  # fmt: skip
"""A command's page under docs/, by its first word; of all others it is cli.md."""


def page_of(path: str) -> str:
    """The path of the page about a command in the project's folder."""
    return f"docs/{_PAGES.get(path.split()[0], 'cli')}.md"
