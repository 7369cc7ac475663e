"""Columns in which `verify` may miss a changed value, with the reasons; for `test_rows.py`."""

from __future__ import annotations

TRANSIENT = "kept for a day or less, and created again when needed"
REPORTED = "reported by a worker or runner, which reports it again within a minute"
ALONE = "chosen by people and stored only once"
WHEN = "a time or a person that is recorded nowhere else"

UNKNOWABLE: dict[str, str] = {
    "answers.*": TRANSIENT,
    "uploads.*": TRANSIENT,
    "pending_deletes.*": "a sweep checks again in the transaction that deletes",
    "files.unneeded_since": "a sweep checks again before it uses the mark",
    "damaged_files.reason": "a sentence for people",
    "damaged_files.found_at": WHEN,
    "workers.*": REPORTED,
    "residents.*": REPORTED,
    "runners.*": REPORTED,
    "jobs.*": ALONE + ", but for its state and task; what a job does is looked at when it acts",
    "job_steps.*": "how far a job is; a step that is done again changes nothing",
    "job_lines.*": "a log for people",
    "job_schedules.*": ALONE,
    "tokens.*": ALONE + ": a token's limits and times are in no other place",
    "principals.*": ALONE,
    "principal_groups.*": ALONE,
    "group_members.*": ALONE,
    "grants.*": ALONE + ": what somebody is granted is in no other place",
    "accountable_owners.*": ALONE,
    "policies.*": ALONE + ", but for its alias and text",
    "approvals.*": ALONE + "; one that does not fit a version and a generation counts for nothing",
    "promotions.id": "a row's own number, of which only the order matters",
    "quotas.*": ALONE + ": what administrators set is in no other place",
    "invitations.*": TRANSIENT,
    "issuers.*": ALONE + ": whom administrators trust is in no other place",
    "publishers.*": ALONE + ": which jobs may push is in no other place",
    "used_id_tokens.*": TRANSIENT,
    "external_users.*": "sent by an identity provider, which sends it again at the next sign-in",
    "provider_groups.*": ALONE,
    "device_sign_ins.*": TRANSIENT,
    "refresh_tokens.*": TRANSIENT,
    "request_use.*": TRANSIENT,
    "posted_files.*": "what programs posted, kept once; its content is compared with its digest when it"
    " is read",
    "webhooks.*": ALONE,
    "webhook_deliveries.*": TRANSIENT,
    "stored_use.scope": "a count of zero equals a missing row",
    "stored_use.name": "a count of zero equals a missing row",
    "commits.message": "what people wrote, kept once where it is no version's",
    "rollouts.interval": ALONE,
    "rollouts.step_at": "within a minute of its event",
    "rollouts.started_at": "within a minute of its event",
    "rollouts.steps": "future steps are stored only once; the current one is compared",
    "events.by": WHEN + " where the row it tells of has changed since",
    "events.at": WHEN + " where the row it tells of has changed since",
    "events.detail": "the words of earlier edits, and details for people, are kept once",
    "base_files.path": "compared with its record where the base was registered with --full",
    "files.owner": "bytes that nobody uses: a sweep takes them",
    "files.digest": "bytes that nobody uses: a sweep takes them",
    "adapters.downloads": (
        "of a deleted adapter, the count restarts when the name is used again; others are compared"
    ),
    "bases.key": "a row's own number, of which only the order matters",
    "rollouts.id": "a row's own number, of which only the order matters",
    "weights.weights_digest": (
        "compared with the version's; of a file that no version has it is derived again when that is pushed"
    ),
    "adapters.next_number": (
        "one too high is missed for a name that another adapter had before; others are found (`QUICK`)"
    ),
    "epochs.id": "a random value that is kept once",
    "epochs.secret": "a random value that is kept once",
    "epochs.began_at": WHEN,
    "inspections.file_digest": (
        "computed again for a file without one; an entry without a file is never used"
    ),
    "weights.file_digest": "derived again for a file without one; an entry without a file is never used",
    "metric_values.id": "a row's own number, of which only the order matters",
    "audit_entries.*": "an entry is stored only once until it is sealed; later changes are found",
    "audit_checkpoints.*": "`adaptry audit verify` looks at the signed checkpoints",
    "audit_state.*": "`adaptry audit verify` looks at the signed checkpoints",
    "audit_subtrees.*": "`adaptry audit verify` looks at the signed checkpoints",
    "index_updates.*": "how far an update is; the terms that it has not reached are found when it is over",
    "terms.*": "a term without versions affects no search",
}
"""By column (or `table.*`): why a changed value may be missed. This holds for every value of such a column;
changes of all other columns must be found.
"""

RESTORED = {
    "recall_claims.at": WHEN + " where a worker knew of the recall",
    "recall_claims.name": "what the replaced catalog knew is nowhere else",
    "recall_claims.digest": "what the replaced catalog knew is nowhere else",
    "recall_claims.state": "what the replaced catalog knew is nowhere else",
}
"""The same, in addition, for a registry that was restored."""

UNUSED_ADAPTERS = """
    SELECT id FROM adapters
    WHERE moved_to IS NOT NULL AND id NOT IN (SELECT adapter_id FROM events WHERE adapter_id IS NOT NULL)
"""
"""Rows whose number no other row refers to: former names of renamed adapters that no other adapter has had.
Changing such a number to another free one has no effect. (Numbers have gaps anyway: an adapter that takes its
former name back drops the row.)
"""
