"""The action of the audit log that each route attempts: what is recorded when a request is denied.

A test compares the table with the routes, so that no changing route can be forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping

READ = "request.make"
"""The action of every request that only reads."""

_ADAPTER = "/api/v1/adapters/{namespace}/{name}"
_ALIAS_PAGE = "/-/aliases/{namespace}/{name}/{alias}"
_MODEL = "/api/models/{namespace}/{name}"
_LFS = "/{namespace}/{name}.git/info/lfs/objects"
_INBOXES = tuple(
    f"/api/datasets/{{namespace}}/{name}" for name in ("lm-eval-results", "lm-eval-results-private")
)

_SETTINGS = "/-/settings"
_OF_NAMESPACE = f"{_SETTINGS}/namespaces/{{namespace}}"
_OF_ADAPTER = f"{_SETTINGS}/adapters/{{namespace}}/{{name}}"
_TOKENS = {"create": "token.create", "revoke": "token.revoke"}
_PRINCIPALS = {
    "create": "principal.create",
    "disable": "principal.disable",
    "enable": "principal.enable",
}
_POLICIES = {"set": "policy.set", "try": READ, "remove": "policy.remove"}
_LIMITS = {"set": "quota.set", "remove": "quota.remove"}

FORM_ACTIONS: Mapping[str, Mapping[str, str]] = {
    "/-/compare": {"measure": "job.submit"},
    "/-/combine": {"preview": "job.submit", "run": "job.submit"},
    "/-/jobs/{id}": {"cancel": "job.cancel", "retry": "job.retry", "submit": "job.submit"},
    f"{_SETTINGS}/tokens": _TOKENS,
    f"{_SETTINGS}/users": {**_PRINCIPALS, "invite": "invitation.create"},
    f"{_SETTINGS}/groups": {
        "create": "group.create",
        "delete": "group.delete",
        "add": "group.add",
        "remove": "group.remove",
    },
    f"{_SETTINGS}/issuers": {"add": "issuer.add", "remove": "issuer.remove"},
    f"{_SETTINGS}/limits": _LIMITS,
    f"{_OF_NAMESPACE}/limits": _LIMITS,
    f"{_OF_NAMESPACE}/members": {
        "set": "member.set",
        "remove": "member.set",
        "accountable": "member.account",
        "grant": "grant.add",
        "take-back": "grant.remove",
    },
    f"{_OF_NAMESPACE}/service-accounts": {
        **_PRINCIPALS,
        "create-token": "token.create",
        "revoke": "token.revoke",
    },
    f"{_OF_NAMESPACE}/policies": _POLICIES,
    f"{_OF_ADAPTER}/policies": _POLICIES,
    f"{_OF_ADAPTER}/publishers": {"add": "publisher.add", "remove": "publisher.remove"},
    f"{_OF_NAMESPACE}/webhooks": {"add": "webhook.add"},
    f"{_OF_NAMESPACE}/webhooks/{{id}}": {
        name: f"webhook.{name}" for name in ("enable", "disable", "test", "rotate", "redeliver", "remove")
    },
}
"""The actions of pages whose forms name one in the field `do`."""

ROUTE_ACTIONS: Mapping[str, str] = {
    "POST /api/v1/tokens": "token.create",
    "DELETE /api/v1/tokens/{id}": "token.revoke",
    "POST /api/v1/tokens/revoke": "token.revoke",
    f"POST {_ADAPTER}/blobs": "upload.open",
    f"POST {_ADAPTER}/uploads": "upload.open",
    "POST /api/v1/bases/{base}/uploads": "upload.open",
    "DELETE /api/v1/uploads/{id}": "upload.drop",
    "PATCH /api/v1/uploads/{id}": "upload.open",
    "POST /api/v1/uploads/{id}/finish": "upload.open",
    "POST /api/v1/bases": "base.register",
    "PATCH /api/v1/bases/{base}": "base.edit",
    "PUT /api/v1/bases/{base}/files": "base.store",
    "POST /api/v1/adapters": "adapter.create",
    f"PATCH {_ADAPTER}": "adapter.edit",
    f"DELETE {_ADAPTER}": "adapter.delete",
    f"POST {_ADAPTER}/rename": "adapter.rename",
    f"POST {_ADAPTER}/versions/{{selector}}/downloads": READ,
    f"POST {_ADAPTER}/revisions": "version.push",
    f"POST {_ADAPTER}/revisions/with-files": "version.push",
    f"PUT {_ADAPTER}/revisions/{{revision}}/base": "version.bind",
    f"PUT {_ADAPTER}/revisions/{{revision}}/state": "version.set_state",
    f"POST {_ADAPTER}/commits": "commit.create",
    f"POST {_ADAPTER}/commits/squash": "branch.squash",
    f"POST {_ADAPTER}/branches": "branch.create",
    f"DELETE {_ADAPTER}/branches/{{branch:path}}": "branch.delete",
    f"POST {_ADAPTER}/tags": "tag.create",
    f"DELETE {_ADAPTER}/tags/{{tag:path}}": "tag.delete",
    f"PUT {_ADAPTER}/aliases/{{alias}}": "alias.move",
    f"DELETE {_ADAPTER}/aliases/{{alias}}": "alias.remove",
    f"POST {_ADAPTER}/aliases/{{alias}}/evaluation": READ,
    f"PUT {_ADAPTER}/aliases/{{alias}}/approvals/{{revision}}": "approval.give",
    f"DELETE {_ADAPTER}/aliases/{{alias}}/approvals/{{revision}}": "approval.withdraw",
    "PUT /api/v1/policies": "policy.set",
    "DELETE /api/v1/policies": "policy.remove",
    f"POST {_ADAPTER}/versions/{{selector}}/metrics": "metric.log",
    f"POST {_ADAPTER}/versions/{{selector}}/evidence": "evidence.add",
    "POST /api/v1/evidence/{id}/withdrawal": "evidence.withdraw",
    "POST /api/v1/namespaces/{namespace}/results": "results.keep",
    "POST /api/v1/results/{id}/attachment": "results.attach",
    "DELETE /api/v1/results/{id}": "results.discard",
    f"POST {_ADAPTER}/rollouts": "rollout.start",
    f"PATCH {_ADAPTER}/rollouts/{{alias}}": "rollout.advance",
    "POST /api/v1/workers": "worker.report",
    "PUT /api/v1/workers/{worker}/gone": "worker.gone",
    "DELETE /api/v1/workers/{worker}": "worker.forget",
    "POST /api/v1/jobs": "job.submit",
    "POST /api/v1/jobs/{job}/cancel": "job.cancel",
    "POST /api/v1/jobs/{job}/retry": "job.retry",
    "PUT /api/v1/schedules/{schedule}": "schedule.set",
    "DELETE /api/v1/schedules/{schedule}": "schedule.delete",
    "POST /api/v1/principals": "principal.create",
    "PATCH /api/v1/principals": "principal.disable",
    "POST /api/v1/groups": "group.create",
    "DELETE /api/v1/groups/{group}": "group.delete",
    "PATCH /api/v1/groups/{group}/members": "group.add",
    "POST /api/v1/grants": "grant.add",
    "DELETE /api/v1/grants/{id}": "grant.remove",
    "PATCH /api/v1/namespaces/{namespace}/members": "member.set",
    "PUT /api/v1/namespaces/{namespace}/accountable": "member.account",
    "POST /api/v1/issuers": "issuer.add",
    "DELETE /api/v1/issuers/{issuer}": "issuer.remove",
    f"POST {_ADAPTER}/publishers": "publisher.add",
    f"DELETE {_ADAPTER}/publishers/{{id}}": "publisher.remove",
    "POST /oauth/device": READ,
    "POST /-/device": "token.create",
    f"POST {_ALIAS_PAGE}/promote": "alias.move",
    f"POST {_ALIAS_PAGE}/override": "alias.move",
    f"POST {_ALIAS_PAGE}/rollback": "alias.move",
    f"POST {_ALIAS_PAGE}/approve": "approval.give",
    f"POST {_ALIAS_PAGE}/withdraw": "approval.withdraw",
    "POST /oauth/token": "publisher.exchange",
    "PUT /api/v1/sso/groups": "sso.map",
    "DELETE /api/v1/sso/groups": "sso.unmap",
    "PUT /api/v1/sso/users": "sso.link",
    "PUT /api/v1/quotas": "quota.set",
    "DELETE /api/v1/quotas": "quota.remove",
    "POST /api/v1/invitations": "invitation.create",
    "POST /api/v1/invitations/accept": "invitation.accept",
    "POST /api/v1/audit/exports": "audit.export",
    "POST /api/v1/webhooks": "webhook.add",
    "PATCH /api/v1/webhooks/{id}": "webhook.enable",
    "DELETE /api/v1/webhooks/{id}": "webhook.remove",
    "POST /api/v1/webhooks/{id}/test": "webhook.test",
    "POST /api/v1/webhooks/{id}/secret": "webhook.rotate",
    "POST /api/v1/webhooks/{id}/deliveries/{message}/redelivery": "webhook.redeliver",
    "POST /api/v1/authorize": READ,
    "POST /api/v1/authorize/ext-authz/{path:path}": READ,
    # Pages
    "POST /-/sign-in": READ,
    "POST /-/sign-in/link": READ,
    "POST /-/sign-out": READ,
    # The Hub's protocol
    "POST /api/validate-yaml": READ,
    "POST /xet/{upload}/v1/xorbs/default/{hash}": "upload.open",
    "POST /xet/{upload}/shards": "upload.open",
    "POST /xet/{upload}/v1/shards": "upload.open",
    "POST /xet/{upload}/v2/shards": "upload.open",
    f"POST {_LFS}/batch": "upload.open",
    f"POST {_LFS}/verify": READ,
    "PUT /api/lfs/objects": "upload.open",
    "PUT /api/lfs/parts": "upload.open",
    "POST /api/lfs/parts": "upload.open",
    "POST /api/repos/create": "adapter.create",
    "DELETE /api/repos/delete": "adapter.delete",
    "POST /api/repos/move": "adapter.rename",
    f"PUT {_MODEL}/settings": "adapter.edit",
    f"POST {_MODEL}/discussions": READ,
    f"POST {_MODEL}/preupload/{{revision}}": "upload.open",
    f"POST {_MODEL}/commit/{{revision}}": "commit.create",
    f"POST {_MODEL}/paths-info/{{revision}}": READ,
    "POST /api/models/{word}/paths-info/{revision}": READ,
    f"POST {_MODEL}/tag/{{revision}}": "tag.create",
    f"DELETE {_MODEL}/tag/{{revision}}": "tag.delete",
    f"POST {_MODEL}/branch/{{revision}}": "branch.create",
    f"DELETE {_MODEL}/branch/{{revision}}": "branch.delete",
    f"POST {_MODEL}/super-squash/{{revision}}": "branch.squash",
    f"POST {_MODEL}/lfs-files/batch": READ,
    **{f"POST {one}/preupload/{{revision}}": READ for one in _INBOXES},
    **{f"POST {one}/paths-info/{{revision}}": READ for one in _INBOXES},
    **{f"POST {one}/commit/{{revision}}": "results.keep" for one in _INBOXES},
    **{f"POST {path}": READ for path in FORM_ACTIONS},
}


def action_of(method: str, path: str, form_action: str = "") -> str:
    """The action of a route, by its template, and by the form's field `do` if a page has several forms."""
    if method == "POST" and form_action in (actions := FORM_ACTIONS.get(path, {})):
        return actions[form_action]
    return ROUTE_ACTIONS.get(f"{method} {path}", READ)
