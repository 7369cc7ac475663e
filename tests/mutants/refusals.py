"""Each attack on sign-in, publishing, outgoing requests, gateways and so on: response, check and test.

    python -m tests.mutants.refusals --folder FOLDER
    python -m tests.mutants.refusals --page > docs/refusals.md

The first command removes one check after another, and verifies that the named test then fails. The second
writes the table for readers.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from .access import AccessFault, try_faults

ID_TOKENS = "api/adaptry_api/oauth/id_tokens.py"
EXCHANGE = "api/adaptry_api/oauth/token_exchange.py"
KEYS = "api/adaptry_api/oauth/issuer_keys.py"
PROVIDER = "api/adaptry_api/sign_in/provider.py"
CALLBACK = "api/adaptry_api/pages/provider_sign_in.py"
PAGE_SECURITY = "api/adaptry_api/pages/security.py"
ROUTE = "api/adaptry_api/routes/inference.py"
JOBS = "registry/adaptry/core/access/ci_jobs.py"
ADDRESSES = "registry/adaptry/core/outgoing_requests/addresses.py"
CONNECTOR = "registry/adaptry/core/outgoing_requests/connector.py"
URL = "registry/adaptry/core/outgoing_requests/url.py"
STORAGE = "registry/adaptry/storage/"
CATALOG = "registry/adaptry/storage/catalog/"
SEALING = CATALOG + "audit_log/sequencer.py"
LIMITS = "api/adaptry_api/request_limits.py"
SHARE = "api/adaptry_api/request_count_exchange.py"
INFERENCE = "registry/adaptry/storage/local/inference.py"

PUBLISHING = "tests/api/test_publishing.py::"
ISSUERS = "tests/api/test_issuer_keys.py::"
SIGN_IN = "tests/api/test_sign_in.py::"
CANAILLE = "tests/api/test_sign_in_canaille.py::"
DEVICE = "tests/api/test_device_sign_in.py::"
REFRESH = "tests/storage/test_refresh_tokens.py::"
OUTGOING = "tests/domain/test_outgoing.py::"
REFS = "tests/domain/test_refs.py::"
CI_JOBS = "tests/domain/test_ci_jobs.py::"
WEBHOOKS = "tests/storage/test_webhooks.py::"
GATEWAY = "tests/api/test_gateway.py::"
SHARING = "tests/api/test_request_sharing.py::"
PERMISSIONS = "tests/api/test_permissions.py::"
AUDIT_LOG = "tests/storage/test_audit_log.py::"
CONTRACT = "tests/contract/test_registry_local.py::TestInFiles::"
PAGES = "tests/pages/test_signing_in.py::"

WRONG = PUBLISHING + "test_a_token_of_another_job_time_or_audience_is_refused"
ANSWERS = SIGN_IN + "test_answers_that_are_not_of_this_provider_and_sign_in_are_refused"
CALLBACKS = SIGN_IN + "test_a_callback_of_another_browser_state_or_provider_is_refused"
ADMITTED = SIGN_IN + "test_a_user_needs_a_mapped_group_or_a_link_and_cannot_take_an_existing_name"
GRANT = "400 `invalid_grant`"


@dataclass(frozen=True, slots=True)
class Refusal(AccessFault):
    """`check` is the attack, and `answer` what the attacker gets."""

    answer: str
    area: str


def _area(area: str, *rows: tuple[str, str, str, str, str, str]) -> tuple[Refusal, ...]:
    """Rows of attack, answer, file, text there, the text without the check, and test."""
    return tuple(
        Refusal(attack, file, before, after, test, answer, area)
        for attack, answer, file, before, after, test in rows
    )


PUBLISH = _area(
    "ID tokens of CI jobs",
    ("signed with `none`, an HMAC, or an algorithm other than RS256 and ES256", GRANT, ID_TOKENS,
     "if algorithm not in ALGORITHMS:", "if False:",
     PUBLISHING + "test_unsigned_tokens_and_those_signed_with_a_shared_secret_are_refused"),
    ("claims changed after signing", GRANT, ID_TOKENS,
     "claims = jwt.decode(token.text, matching[0], algorithms=ALGORITHMS).claims",
     'claims = _part(token.text.split(".")[1])',
     PUBLISHING + "test_changed_claims_are_refused"),
    ("signed with a key inside the token (`jwk`, `jku`), or one that its issuer does not have", GRANT,
     ID_TOKENS, "matching = [key for key in keys.keys if token.key_id is None or key.kid == token.key_id]",
     "matching = list(keys.keys)",
     PUBLISHING + "test_a_key_inside_the_token_is_not_used"),
    ("for another audience, or for several", GRANT, ID_TOKENS,
     'if claims.get("aud") not in (audience, [audience]):', "if False:", WRONG),
    ("expired", GRANT, ID_TOKENS, 'if claims["exp"] <= now - LEEWAY:', "if False:", WRONG),
    ("not valid yet (`iat`, `nbf`)", GRANT, ID_TOKENS,
     'if max(claims["iat"], claims.get("nbf", 0)) > now + LEEWAY:', "if False:", WRONG),
    ("malformed times: missing, text, `true`, 1e300", GRANT, ID_TOKENS,
     "if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < _LATEST:",
     "if False:", WRONG),
    ("without an id (`jti`)", GRANT, EXCHANGE, "if not isinstance(jti, str) or not jti:",
     "if not isinstance(jti, str):", WRONG),
    ("used before, or by many callers at once", GRANT, STORAGE + "token_exchange.py",
     "if not publishers.use_id_token(tx, issuer.url, jti, expires_at + LEEWAY, now):",
     "if not publishers.use_id_token(tx, issuer.url, jti, expires_at + LEEWAY, now) and False:",
     PUBLISHING + "test_an_id_token_is_used_once_also_by_many_at_once"),
    ("of a job that `pull_request_target` started", GRANT, JOBS, '{"pull_request_target", "workflow_run"}',
     '{"workflow_run"}', WRONG),
    ("of a job that `workflow_run` started", GRANT, JOBS, '{"pull_request_target", "workflow_run"}',
     '{"pull_request_target"}', WRONG),
    ("of a merge request's pipeline", GRANT, JOBS, '{"merge_request_event", "external_pull_request_event"}',
     '{"external_pull_request_event"}',
     CI_JOBS + "test_a_gitlab_job_that_may_run_foreign_code_is_refused"),
    ("of another repository, with the same names", GRANT, JOBS,
     "(job.project_id, job.owner_id, job.workflow) == (self.project_id, self.owner_id, self.workflow)",
     "(job.owner_id, job.workflow) == (self.owner_id, self.workflow)", WRONG),
    ("of another owner of the repository", GRANT, JOBS,
     "(job.project_id, job.owner_id, job.workflow) == (self.project_id, self.owner_id, self.workflow)",
     "(job.project_id, job.workflow) == (self.project_id, self.workflow)", WRONG),
    ("of another workflow", GRANT, JOBS,
     "(job.project_id, job.owner_id, job.workflow) == (self.project_id, self.owner_id, self.workflow)",
     "(job.project_id, job.owner_id) == (self.project_id, self.owner_id)", WRONG),
    ("of a workflow in another repository", GRANT, JOBS,
     'place.startswith(f"{repository}/{_WORKFLOWS}") and ', "", WRONG),
    ("of another branch", GRANT, JOBS, "            and self.branch in (None, job.branch)\n", "", WRONG),
    ("of another environment", GRANT, JOBS,
     "            and self.environment in (None, job.environment)\n", "",
     CI_JOBS + "test_a_rule_matches_exactly_what_it_names"),
    ("of a tag with the name of a branch", GRANT, JOBS,
     "return ref.removeprefix(_BRANCH) if ref.startswith(_BRANCH) else None",
     'return ref.rpartition("/")[2]', WRONG),
    ("of a publisher whose account is disabled", GRANT, STORAGE + "token_exchange.py",
     " or account.info.disabled_at is not None", "",
     PUBLISHING + "test_a_disabled_account_stops_its_publisher"),
    ("the job's token, used to create other tokens", "403", STORAGE + "token_exchange.py",
     'limit = Limit(("push",), (Resource(name.namespace, name.name),))', "limit = None",
     PUBLISHING + "test_a_jobs_token_cannot_create_tokens"),
    ("an issuer whose metadata names another", "503 `temporarily_unavailable`", KEYS,
     'if document.get("issuer") != issuer:', "if False:",
     PUBLISHING + "test_an_issuer_whose_metadata_names_another_is_refused"),
    ("an issuer's RSA key of fewer than 2048 bits", "503 `temporarily_unavailable`", KEYS,
     "return key if key.public_key.key_size >= _MIN_RSA_BITS else None", "return key",
     ISSUERS + "test_keys_that_are_weak_or_not_for_signatures_are_not_used"),
    ("an issuer's key that is meant for encryption", "503 `temporarily_unavailable`", KEYS,
     ' or document.get("use", "sig") != "sig"', "",
     ISSUERS + "test_keys_that_are_weak_or_not_for_signatures_are_not_used"),
    ("a flood of tokens with invented key ids", GRANT + ", and six fetches a minute", KEYS,
     "if len(provider.begun) == _MAX_FETCHES and now - provider.begun[0] < _WINDOW:", "if False:",
     PUBLISHING + "test_invented_key_ids_cause_a_few_requests_only"),
    ("waiting for an issuer that is slow and fails", "503 at once, for 15 s", KEYS,
     "if now - provider.failed_at < _RETRY_DELAY:", "if False:",
     ISSUERS + "test_after_a_slow_failure_callers_fail_immediately_for_15_seconds"),
)  # fmt: skip

AT_A_PROVIDER = _area(
    "Signing in at an identity provider",
    ("the provider's answer to another sign-in (`nonce`)", "401", PROVIDER,
     'if claims.get("nonce") != nonce:',
     "if False:", ANSWERS),
    ("an ID token of another issuer", "401", PROVIDER, "if token.issuer != self.issuer:", "if False:",
     ANSWERS),
    ("a callback with another `state`", "401", CALLBACK, "if state != begun.state or (iss", "if (iss",
     CALLBACKS),
    ("a callback of another issuer (`iss`)", "401", CALLBACK,
     " or (iss is not None and iss != provider.issuer)", "", CALLBACKS),
    ("a sign-in that began more than ten minutes ago", "401", CALLBACK,
     "if found is None or found.until <= time.time():", "if found is None:",
     SIGN_IN + "test_an_expired_sign_in_is_refused"),
    ("a stolen code, without the PKCE verifier", "refused by the provider, so 401", PROVIDER,
     '            "code_verifier": verifier,\n', "",
     SIGN_IN + "test_the_verifier_and_the_clients_secret_are_sent_with_the_code"),
    ("a PKCE challenge that can be reversed (`plain`)", "never sent: S256", PROVIDER,
     '"code_challenge_method": "S256"', '"code_challenge_method": "plain"',
     SIGN_IN + "test_the_provider_is_asked_with_pkce_state_and_nonce"),
    ("`next` that leads to another host", "ignored: `/`", "api/adaptry_api/pages/sign_in.py",
     'is_own = text.startswith("/") and not text.startswith(("//", "/\\\\")) and text.isprintable()',
     "is_own = True", PAGES + "test_signing_in_leads_to_no_other_site"),
    ("a form of another site", "403", PAGE_SECURITY,
     "if (site is None and origin is None) or site not in (None, \"same-origin\")"
     " or origin not in (None, own):",
     "if False:", PAGES + "test_forms_of_other_sites_are_refused"),
    ("a link to a confirmation whose button would do something else", "the dialog does only what it names",
     "api/adaptry_api/pages/settings/members.py", '{"kind": kind, "who": member}', "dict(fields)",
     "tests/pages/test_settings.py::test_a_confirmation_performs_only_the_action_that_it_names"),
    ("a user in no mapped group", "403", STORAGE + "sign_ins.py",
     "if any(claim in user.groups for claim, _ in sign_ins.mapped_groups(tx)):", "if True:", ADMITTED),
    ("a user who has left all mapped groups, with a session and a token from it", "401; a new sign-in: 403",
     STORAGE + "sign_ins.py", "        if not _is_admitted(tx, external, user):", "        if False:",
     SIGN_IN + "test_a_user_who_left_all_mapped_groups_has_no_access"),
    ("a user with the name of another user here", "403", STORAGE + "sign_ins.py",
     "    if (taken := principals.find_ignoring_case(tx, name)) is not None:",
     "    if (known := principals.find_ignoring_case(tx, name)) is not None:\n"
     "        return sign_ins.insert_external(tx, user.issuer, user.subject, known.key, now, name), known\n"
     "    if False:", ADMITTED),
    ("a user with a reserved name", "403", STORAGE + "sign_ins.py", " and not is_reserved(one)", "",
     ADMITTED),
    ("a disabled user", "403", STORAGE + "sign_ins.py",
     "        if principal.info.disabled_at is not None:", "        if False:", ADMITTED),
    ("a session, or a token made in one, an hour after the provider's last confirmation", "401",
     STORAGE + "tokens.py",
     "if token.external is not None and not is_confirmed(token.confirmed_at, datetime.now(UTC)):",
     "if False:",
     SIGN_IN + "test_a_session_and_its_tokens_stop_an_hour_after_the_last_confirmation"),
    ("a token of a user who left the provider", "401: revoked", CATALOG + "sign_ins.py",
     "    tokens.revoke_of_external(tx, user.key, now)\n", "",
     CANAILLE + "test_a_former_user_loses_session_and_derived_tokens"),
    ("a token that an administrator made for themselves, after leaving the provider's group", "403",
     STORAGE + "local/tokens.py",
     "if external is not None and request.name == by:", "if False:",
     SIGN_IN + "test_an_administrator_by_a_group_loses_the_role_with_the_group"),
    ("a token that an administrator was given, after leaving the provider", "403", STORAGE + "sign_ins.py",
     "    _join_groups(tx, principal, (), now)\n", "",
     SIGN_IN + "test_an_administrator_who_left_loses_tokens_and_groups"),
    ("an administrator through a provider's group who invites themselves", "403",
     STORAGE + "local/principals.py",
     "if self.context.identity.external is not None and request.name == self.context.identity.name:",
     "if False:", SIGN_IN + "test_an_administrator_by_a_group_loses_the_role_with_the_group"),
    ("a confirmation with another user's ID token", "the sign-in ends", PROVIDER,
     "if user.subject != subject:", "if False:",
     SIGN_IN + "test_a_confirmation_about_another_user_ends_the_sign_in"),
    ("groups of another user (userinfo)", "401", PROVIDER, 'if info.get("sub") != subject:', "if False:",
     SIGN_IN + "test_groups_of_another_user_are_not_taken"),
    ("a copy of the cookie after signing out", "the sign-in page", STORAGE + "sign_ins.py",
     "        kept.shorten(tx, found.info.id, now)\n", "",
     SIGN_IN + "test_signing_out_ends_the_session_and_its_token"),
)  # fmt: skip

PROGRAMS = _area(
    "Programs: device codes and refresh tokens",
    ("a device code older than 15 minutes", "400 `expired_token`", STORAGE + "device_sign_ins.py",
     "if found is None or found.expires_at <= now:\n            return",
     "if found is None:\n            return",
     DEVICE + "test_a_code_expires_after_a_quarter_of_an_hour"),
    ("a device code that was used", "400 `expired_token`", STORAGE + "device_sign_ins.py",
     "        waiting.remove(tx, found)\n", "",
     DEVICE + "test_a_program_gets_one_token_after_its_user_approved_it"),
    ("a program that polls too often", "400 `slow_down`", STORAGE + "device_sign_ins.py",
     'return "slow_down" if', 'return "authorization_pending" if',
     DEVICE + "test_a_program_gets_one_token_after_its_user_approved_it"),
    ("an approval with a limited token", "403", STORAGE + "device_sign_ins.py",
     "if own is None or own.limit is not None:", "if own is None:",
     DEVICE + "test_a_limited_token_approves_no_program"),
    ("an approval whose token was revoked before the program polled", "400 `expired_token`",
     CATALOG + "tokens.py", "        _end_approvals(tx, id)\n", "        pass\n",
     DEVICE + "test_an_approval_ends_with_the_approving_token"),
    ("an approval by a user who was disabled before the program polled", "400 `access_denied`",
     STORAGE + "device_sign_ins.py",
     " or principals.by_key(tx, found.principal).info.disabled_at is not None", "",
     DEVICE + "test_a_program_of_a_disabled_user_gets_no_token"),
    ("a refresh token that was used before", GRANT + ", and the sign-in ends", CATALOG + "refresh_tokens.py",
     "return self.used_at is None or (self.retry_until is not None and now < self.retry_until)",
     "return True",
     REFRESH + "test_a_refresh_token_that_is_used_again_ends_the_sign_in_for_both"),
    ("a refresh token that is repeated after ten minutes", GRANT + ", and the sign-in ends",
     CATALOG + "refresh_tokens.py", "(self.retry_until is not None and now < self.retry_until)",
     "(self.retry_until is not None)",
     REFRESH + "test_an_exchange_may_be_repeated_after_a_lost_answer_for_a_few_minutes"),
    ("tokens of a response that a retry replaced", "401, and the sign-in ends", CATALOG + "refresh_tokens.py",
     "    tx.execute(update(RefreshTokenRow).where(*unused_others).values(used_at=now))\n", "",
     REFRESH + "test_a_stolen_refresh_token_is_detected_at_the_next_refresh"),
    ("a refresh token of another program", GRANT, STORAGE + "refresh_tokens.py",
     "found is None or found.client_id != client_id or", "found is None or",
     REFRESH + "test_a_refresh_token_belongs_to_the_program_that_began"),
    ("a refresh token that nobody used for 90 days", GRANT, STORAGE + "refresh_tokens.py",
     " or _end(found) <= now", "", REFRESH + "test_an_unused_sign_in_ends_after_ninety_days"),
    ("a refresh token of a disabled user", GRANT, STORAGE + "refresh_tokens.py", "if owner.is_disabled:",
     "if False:", REFRESH + "test_a_disabled_user_gets_no_token_and_the_old_one_is_not_used_up"),
    ("a refresh token of a user whom the provider has not confirmed for an hour",
     "503 `temporarily_unavailable`", STORAGE + "refresh_tokens.py",
     "if owner.external is not None and not tokens.is_confirmed(owner.confirmed_at, now):", "if False:",
     REFRESH + "test_the_provider_decides_about_refresh_tokens_as_about_access_tokens"),
    ("a program's other tokens, after one of them was revoked", "401", CATALOG + "tokens.py",
     "    for other in sorted(others):\n        revoke_alone(tx, other, at)\n", "",
     REFRESH + "test_revoking_an_access_token_ends_the_whole_sign_in"),
    ("a refresh token that was reported as leaked", GRANT + ", and the sign-in ends",
     STORAGE + "tokens.py", "            kept.revoke(tx, refresh.token, datetime.now(UTC))\n",
     "            pass\n", REFRESH + "test_a_reported_refresh_token_ends_its_sign_in_and_no_other"),
    ("a refresh token whose access token is revoked", GRANT, STORAGE + "refresh_tokens.py",
     "if owner.info.revoked_at is not None:", "if False:",
     REFRESH + "test_a_revoked_access_token_is_not_refreshed"),
    ("an approval in a backup, after its restore", "400 `expired_token`", CATALOG + "epochs.py",
     "        tx.execute(sa.delete(orm.DeviceSignInRow))\n", "",
     REFRESH + "test_a_restore_that_revokes_tokens_signs_programs_out"),
    ("a program that refreshes too often", "503 `temporarily_unavailable`", STORAGE + "refresh_tokens.py",
     "if kept.count_issued(tx, found.family, now - _WINDOW) >= _MAX_ISSUED:", "if False:",
     REFRESH + "test_a_program_that_refreshes_all_the_time_has_to_wait"),
)  # fmt: skip

OUTSIDE = _area(
    "The server's outgoing requests: keys, providers, webhooks",
    ("a private, loopback or link-local address", "no connection", CONNECTOR, "if not is_public(address):",
     "if False:", OUTGOING + "test_a_server_on_this_machine_gets_no_connection"),
    ("such an address inside an IPv6 address", "no connection", ADDRESSES,
     "        inner = _embedded(address)\n", "        inner = None\n",
     OUTGOING + "test_no_private_address_counts_as_public"),
    ("a name with a public and a private address", "no connection", CONNECTOR,
     "for address in addresses:\n            if is_inside",
     "for address in addresses[:1]:\n            if is_inside",
     OUTGOING + "test_one_private_address_among_several_refuses_the_name"),
    ("a host name that resolves to another address the second time (DNS rebinding)", "looked up once",
     CONNECTOR,
     "closing(_connect(addresses, where.port, deadline))",
     "closing(_connect([where.host], where.port, deadline))",
     OUTGOING + "test_a_name_is_resolved_once_and_its_meaning_cannot_change"),
    ("a redirect", "not followed", CONNECTOR,
     "                        return self._read(response, deadline)\n",
     "                        found = self._read(response, deadline)\n"
     "                        if found.status == 302:\n"
     '                            return self.request("GET", found.headers["location"])\n'
     "                        return found\n", OUTGOING + "test_a_redirect_is_returned_and_not_followed"),
    ("plain http to a public address", "no connection", CONNECTOR, "            if not where.is_https:",
     "            if False:", OUTGOING + "test_plain_http_is_refused_outside_allowed_networks"),
    ("a certificate of another name", "no request", CONNECTOR,
     "self._tls = tls_context(ca_bundle) if ca_bundle else ssl.create_default_context()",
     "self._tls = tls_context(ca_bundle) if ca_bundle else ssl.create_default_context()\n"
     "        self._tls.check_hostname = False", OUTGOING + "test_a_certificate_must_be_valid_for_the_name"),
    ("an endless response", "cut off", CONNECTOR, "if size > self._max_bytes:", "if False:",
     OUTGOING + "test_a_response_that_is_too_long_is_cut_off"),
    ("a URL with a password or a fragment", "400", URL,
     "if parts.username is not None or parts.password is not None or parts.fragment:", "if False:",
     OUTGOING + "test_other_urls_are_refused_before_any_request"),
    ("a message to a webhook with another body, id or time", "the signature does not verify",
     STORAGE + "webhooks/messages.py", 'signed = f"{message}.{timestamp}.".encode() + body', "signed = body",
     WEBHOOKS + "test_while_a_secret_is_replaced_both_verify"),
    ("a webhook in a private network", "nothing is sent", STORAGE + "webhooks/delivery.py",
     "return GuardedConnector(allowed,",
     'return GuardedConnector((*allowed, __import__("ipaddress").ip_network("0.0.0.0/0")),',
     WEBHOOKS + "test_a_private_address_gets_no_byte_unless_its_network_is_allowed"),
    ("a webhook that redirects", "a failed try", STORAGE + "webhooks/delivery.py", "if 200 <= status < 300:",
     "if 200 <= status < 400:", WEBHOOKS + "test_a_redirect_is_not_followed"),
    ("a provider that does not answer", "occupies eight threads at most", "api/adaptry_api/app_state.py",
     "self.provider_calls = anyio.CapacityLimiter(8)", "self.provider_calls = anyio.CapacityLimiter(40)",
     SIGN_IN + "test_a_provider_that_does_not_answer_occupies_eight_threads_at_most"),
)  # fmt: skip

GATEWAYS = _area(
    "Gateways: may this token use that model",
    ("an unknown or expired token", "the same denial as for any other reason", INFERENCE,
     "except (Unauthenticated, NotFound, Conflict):", "except (NotFound, Conflict):",
     CONTRACT + "test_every_denial_is_the_same"),
    ("an adapter that does not exist, or is private", "the same denial", INFERENCE,
     "except (Unauthenticated, NotFound, Conflict):", "except (Unauthenticated, Conflict):",
     CONTRACT + "test_every_denial_is_the_same"),
    ("a composite model with one part that is not readable", "the same denial", INFERENCE,
     "        for part in stack.parts:\n            version",
     "        for part in stack.parts[:1]:\n            version",
     CONTRACT + "test_a_stack_requires_the_right_to_every_part"),
    ("a gateway of another namespace", "403", INFERENCE, "    _require_gateway(context, stack)\n", "",
     CONTRACT + "test_a_gateway_gets_answers_about_its_own_namespace_only"),
    ("a gateway of another namespace, through Envoy", "the same denial", ROUTE,
     "raise PermissionDenied(error.message, public_message=_DENIED) from error", "raise",
     GATEWAY + "test_a_forwarded_request_is_decided_by_the_model_in_its_body"),
    ("the principal's name in another spelling of its header, through Envoy", "dropped",
     "examples/gateway/envoy.yaml",
     "                common_http_protocol_options: { headers_with_underscores_action: DROP_HEADER }\n", "",
     GATEWAY + "test_behind_a_real_proxy_no_similar_header_names_another_principal"),
    ("a weight in digits of another script, or in another notation", "400",
     "registry/adaptry/core/stack_ref.py", '"-?[0-9]{1,3}(', '"-?\\d{1,3}(',
     REFS + "test_a_weight_in_a_name_is_written_in_one_way"),
    ("a body with a second `Model`", "400", ROUTE,
     'if any(key != "model" and key.casefold() == "model" for key in names):', "if False:",
     GATEWAY + "test_a_request_without_exactly_one_model_does_not_pass"),
)  # fmt: skip

ABUSE = _area(
    "Abuse of shared resources: limits, names, the audit log",
    ("the same limit of requests, used up at each server process", "429: processes share their counts",
     LIMITS,
     "count.idle_at = max(count.idle_at, now + seconds + ", "(",
     SHARING + "test_requests_admitted_by_one_process_count_in_the_others"),
    ("a flood of requests at all processes", "429 after the limit and 1/32 of it for each process", LIMITS,
     "if count.unshared >= max(1, limit // _UNSHARED) and subject", "if count.unshared >= limit and subject",
     SHARING + "test_a_flood_at_all_processes_gets_the_limit_and_each_processs_unshared_part"),
    ("a lock on the counts of requests", "no request waits: each process continues with its own count", SHARE,
     "            except Exception:  # requests must continue after any error\n",
     "            except ZeroDivisionError:\n",
     SHARING + "test_requests_go_on_while_the_counts_are_locked_and_are_shared_afterwards"),
    ("one address that begins so many sign-ins of programs that others cannot",
     "503 `temporarily_unavailable`",
     "api/adaptry_api/oauth/device_route.py",
     "if wait := state.device_limit.seconds_to_wait(peer.host if peer else None):", "if wait := 0.0:",
     DEVICE + "test_one_address_cannot_use_up_the_sign_ins_of_all_others"),
    ("the same from many addresses of one IPv6 network", "503 `temporarily_unavailable`",
     "api/adaptry_api/address_limits.py",
     "ipaddress.IPv6Network((int(found), _NETWORK), strict=False)", "found",
     DEVICE + "test_one_address_cannot_use_up_the_sign_ins_of_all_others"),
    ("a user with a name that the audit log uses for the server itself", "400",
     "registry/adaptry/storage/local/principals.py", "    require_unreserved(name)\n", "",
     PERMISSIONS + "test_no_principal_can_have_a_reserved_author_name"),
    ("the same, with a token for a role", "400", STORAGE + "tokens.py", "        require_unreserved(name)\n",
     "", PERMISSIONS + "test_no_principal_can_have_a_reserved_author_name"),
    ("an audit log shortened in the database to an older signed checkpoint",
     "a running server seals nothing more, and logs it", SEALING,
     "if size < seen.size or _leaf(tx, seen.size) != seen.leaf:", "if False:",
     AUDIT_LOG + "test_a_log_shortened_to_an_older_checkpoint_is_not_sealed_further"),
    ("the same, followed by new entries", "a running server seals nothing more, and logs it", SEALING,
     "if size < seen.size or _leaf(tx, seen.size) != seen.leaf:",
     "if size < seen.size:",
     AUDIT_LOG + "test_a_log_shortened_to_an_older_checkpoint_is_not_sealed_further"),
    ("an approval on a page that was opened before the alias moved", "409",
     "registry/adaptry/storage/local/policies.py",
     "if generation is not None and generation != (found.generation if found else 0):", "if False:",
     CONTRACT + "test_an_approval_may_require_that_the_alias_is_where_it_was_seen"),
)  # fmt: skip

REFUSALS = (*PUBLISH, *AT_A_PROVIDER, *PROGRAMS, *OUTSIDE, *GATEWAYS, *ABUSE)

_HEAD = """# Attacks, and how they are refused

Each row is an attack on [publishing from CI](publishing.md), [signing in](signing-in.md),
[webhooks](webhooks.md), [gateways](gateways.md), [limits](limits.md), names or the [audit log](audit.md): the
answer, and the test that carries out the attack. The test must fail if the check against the attack is
removed from the code: `python -m tests.mutants.refusals --folder FOLDER` removes one check after another to
verify this. `python -m tests.mutants.refusals --page > docs/refusals.md` writes this page.
"""


def page() -> str:
    """The table as a page of the documentation."""
    parts = [_HEAD]
    for area, rows in groupby(REFUSALS, lambda row: row.area):
        lines = [f"| {row.check} | {row.answer} | `{row.test.rpartition('::')[2]}` |" for row in rows]
        parts.append("\n".join((f"## {area}\n", "| attack | answer | test |", "|---|---|---|", *lines, "")))
    return "\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants.refusals", description=(__doc__ or "").splitlines()[0]
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--folder", type=Path, help="Folder for the copy of the tree.")
    what.add_argument("--page", action="store_true", help="Print the page for readers.")
    asked = parser.parse_args()
    if asked.page:
        sys.stdout.write(page())
        return 0
    return try_faults(REFUSALS, asked.folder)


if __name__ == "__main__":
    sys.exit(main())
