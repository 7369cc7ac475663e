"""Every operation, tried by each role from the weakest to the strongest: the first that succeeds is that of
the table in docs/permissions.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adaptry_api.testing import RawResponse, Server, running_server

from .record_examples import Recorder, record, settings_in

PAGE = Path(__file__).parents[2] / "docs" / "permissions.md"
ROLES = ("viewer", "worker", "contributor", "maintainer", "owner")
NOBODY = "a member of another namespace"
ADMINISTRATOR = "an administrator"

OPERATIONS: Mapping[str, str] = {
    # Lists contain only what the caller may see; codes and tokens are separate rights.
    NOBODY: "get_liveness get_readiness get_server_info whoami list_bases find_base"
    " list_bases_of_architecture get_base_record list_uploads list_adapters list_kept_results"
    " list_posted_files search_versions list_workers list_jobs list_runners list_schedules"
    " list_events get_current_name list_tokens"
    " accept_invitation request_token begin_device_sign_in report_leaked_token list_principals list_groups"
    " list_issuers get_server_metrics",
    "read": "has_adapter_blob get_adapter list_adapter_events list_versions get_version get_version_detail"
    " list_version_tensors get_weight_statistics get_weight_distance count_download get_runtime_verdicts"
    " list_metrics list_evidence get_evidence list_evidence_files download_evidence_file post_results"
    " get_kept_results download_posted_results list_aliases get_alias list_policies list_policy_versions"
    " evaluate_policy list_approvals list_promotions get_promotion get_manifest download_file list_commits"
    " get_commit list_references get_worker list_residents summarize_residents list_rollouts"
    " authorize_request get_job get_job_log list_members list_quotas",
    "push": "create_adapter open_adapter_upload append_to_upload finish_upload discard_upload"
    " store_small_adapter_files edit_adapter bind_version_base create_branch create_commit squash_branch"
    " create_tag delete_tag delete_branch",
    "evidence.add": "log_metrics add_evidence withdraw_evidence attach_results discard_results",
    "job.run": "submit_job cancel_job retry_job",
    # The pushes move an alias.
    "alias.move": "push_version push_version_with_files move_alias delete_alias start_rollout change_rollout",
    "approve": "approve_move withdraw_approval",
    "state.set": "set_version_state",
    "delete": "rename_adapter delete_adapter",
    "policy.manage": "set_policy remove_policy",
    "inference.authorize": "authorize_inference",
    "member.manage": "change_member set_accountable add_grant remove_grant explain_access"
    " get_audit_checkpoint list_audit_entries export_audit_log prove_consistency",
    "token.manage": "add_publisher list_publishers remove_publisher",
    "webhook.manage": "add_webhook list_webhooks get_webhook test_webhook list_webhook_deliveries"
    " redeliver_webhook_message rotate_webhook_secret enable_webhook remove_webhook",
    # Some because of their subject: another user's token, or a job of administrators.
    ADMINISTRATOR: "register_base has_base_blob open_base_upload store_base_files download_base_file"
    " edit_base declare_worker_gone forget_worker set_schedule delete_schedule create_token create_principal"
    " create_group change_group list_grants invite_user set_quota remove_quota add_issuer"
    " map_provider_group list_provider_groups unmap_provider_group link_external_user list_external_users"
    " remove_issuer change_principal delete_group list_audit_checkpoints list_sealed_entries prove_inclusion",
}
"""Operations by the action of the table that they require."""
SENT_ONCE = ("report_worker", "revoke_token")
"""The administrator sends these: one principal reports a worker, and everyone may revoke their own token."""


@dataclass(slots=True)
class LeastRole(Recorder):
    """Sends each request with one role after another, weakest first, until it succeeds; `least` is that
    role.
    """

    tokens: Mapping[str, str] = field(default_factory=dict)
    least: dict[str, str] = field(default_factory=dict)

    def send(
        self, operation: str, method: str, at: str, body: object, headers: dict[str, str] | None
    ) -> RawResponse:
        if operation in SENT_ONCE:
            return self.server.call(method, at, body, headers=headers)
        for who, token in self.tokens.items():
            answer = self.server.call(method, at, body, headers=headers, token=token)
            if answer.status < 300:
                break
            assert answer.status in (403, 404), (operation, who, answer.body)
        self.least.setdefault(operation, who)
        return answer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_server(settings_in(tmp_path)) as one:
        yield one


def first_role_with(action: str) -> str:
    """The first role of the documented table that has the action."""
    lines = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    (head,) = (cells for cells in lines if cells[0].strip() == "action")
    (row,) = (cells for cells in lines if cells[0].strip() == f"`{action}`")
    documented = [name.strip() for name, mark in zip(head, row, strict=True) if mark.strip() == "✓"]
    return next(role for role in ROLES if role in documented)


@pytest.mark.slow
def test_each_operation_requires_the_documented_role(server: Server, tmp_path: Path) -> None:
    server.token("former", "viewer", ("acme",))  # is revoked
    roles = {role: server.token(f"u-{role}", role, ("acme",)) for role in ROLES}
    stranger = server.token("stranger", "maintainer", ("elsewhere",))
    walk = LeastRole(server, tokens={NOBODY: stranger, **roles, ADMINISTRATOR: server.admin})

    record(walk, tmp_path)

    expected = {
        operation: action if action in (NOBODY, ADMINISTRATOR) else first_role_with(action)
        for action, operations in OPERATIONS.items()
        for operation in operations.split()
    }
    assert walk.least == expected
