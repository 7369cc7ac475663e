"""Admits revisions to a local registry: derives data, checks it, and assigns a number.

All reading and checking happens before the one transaction that makes a version visible; data that may have
changed in the meantime (the base, the files, the same revision from another push) is checked again inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

from adaptry.adapters.formats import detect_format
from adaptry.core.digest import Digest
from adaptry.core.errors import CheckFailed, Conflict, NotFound
from adaptry.core.failpoints import reach
from adaptry.core.lazy_dataclass import dataclass
from adaptry.core.manifest import Manifest
from adaptry.core.refs import AdapterName, ByDigest, parse_stored_alias
from adaptry.registry.commit_info import CommitNote
from adaptry.registry.commits import MAIN
from adaptry.registry.records import AdapterEdit, PushOptions, PushResult
from adaptry.registry.state_warnings import state_warning
from adaptry.storage.catalog import (
    adapters,
    aliases,
    commits,
    events,
    files,
    git_refs,
    inspections,
    metrics,
    recall_claims,
    states,
    versions,
)
from adaptry.storage.catalog.adapters import AdapterRecord
from adaptry.storage.catalog.audit_log.recorder import set_actor
from adaptry.storage.catalog.database import Reads, Transaction
from adaptry.storage.catalog.ref_resolution import find
from adaptry.storage.catalog.same_content import SameContent, find_same_content
from adaptry.storage.catalog.version_info import by_keys, without_labels
from adaptry.storage.catalog.versions import Admission, VersionRecord
from adaptry.storage.local.admission import (
    ResolvedBase,
    find_base,
)
from adaptry.storage.local.blob_content import check_names
from adaptry.storage.local.context import RegistryContext
from adaptry.storage.local.hidden_bases import hide_base_in_report
from adaptry.storage.local.licence_tags import set_licences
from adaptry.storage.local.push_steps import PushSteps, Steps, StoreFiles, WriteRows, finish_push
from adaptry.storage.local.quotas import require_version
from adaptry.storage.local.revision_derivation import RevisionDerivation, require_all
from adaptry.storage.local.sent_files import SentFiles

if TYPE_CHECKING:
    from adaptry.storage.local.base_binding import Binding
    from adaptry.storage.local.sent_files import SentFiles

MAX_ATTEMPTS = 5


class StaleState(Exception):
    """The derived data are outdated and must be derived again."""


@dataclass(frozen=True, slots=True)
class _PreparedPush:
    """The data that a push read and checked before its transaction: the data of a new version, or the
    `binding` of an existing one that lacks its base; and the sent files that are `lacking`.
    """

    declared: Manifest
    derived: tuple[Admission, ResolvedBase] | None
    binding: Binding | None
    sent: SentFiles | None
    lacking: dict[Digest, bytes]


@dataclass(frozen=True)
class RevisionAdmission:
    """Admits revisions to a local registry."""

    context: RegistryContext

    def admit(self, name: AdapterName, manifest: bytes, options: PushOptions) -> PushResult:
        """Implements `Versions.put`."""
        return finish_push(self.context, name.namespace, self.steps(name, manifest, options))

    def steps(
        self,
        name: AdapterName,
        manifest: bytes,
        options: PushOptions,
        contents: Sequence[bytes] | None = None,
    ) -> PushSteps:
        """The steps of `Versions.put`; with `contents`, those of `Versions.put_with_files`."""
        sent_manifest = Manifest.parse(manifest)
        check_names(sent_manifest)
        if options.alias is not None:
            parse_stored_alias(options.alias)
        if options.metrics:
            from adaptry.storage.local.metrics import check_metrics  # few pushes have metrics

            check_metrics(options.metrics)
        self.context.require("push", name)
        sent = None
        if contents is not None:
            from adaptry.storage.local.sent_files import SentFiles  # only small adapters are sent whole

            sent = SentFiles.verified(self.context, name, sent_manifest, contents)
        for _ in range(MAX_ATTEMPTS):
            prepared = yield from self._prepare(name, sent_manifest, options, sent)
            if prepared.lacking:
                yield StoreFiles(prepared.lacking)
            reach("revisions.before_rows")
            commit = partial(self._commit, name, prepared, options)
            try:
                if options.alias is None:
                    pushed = cast("PushResult", (yield WriteRows(commit)))
                else:
                    from adaptry.storage.local.gates import write_decided  # few pushes need gates

                    pushed = write_decided(self.context, commit)
            except StaleState:
                continue
            reach("revisions.after_commit")
            return pushed
        raise Conflict(f"{name} or its base kept changing while it was pushed; push again")

    def _prepare(
        self, name: AdapterName, declared: Manifest, options: PushOptions, sent: SentFiles | None
    ) -> Steps[_PreparedPush]:
        """Reads and checks everything before the transaction. Raises the errors of `admit`."""
        missing_base = None
        with self.context.catalog.read_prepared() as tx:
            adapter = self._pushable(tx, name, options)
            if adapter is not None and (same := self._same_content(tx, adapter, declared, options)):
                declared, missing_base = same.manifest, same.missing_base
            known = known_version(tx, adapter, declared.digest) if adapter else None
            if known is None:
                require_version(self.context, tx, name.namespace)
            if sent and adapter is None:
                sent.require_free_name(tx)
            lacking = sent.lacking(tx) if sent else {}
        derived, derivation = None, RevisionDerivation(self.context)
        if known is None:
            derived = (
                (yield from derivation.derive_sent(name, declared, options, sent.content))
                if sent
                else derivation.derive(name, declared, options)
            )
        binding = self._binding(known, missing_base, sent) if known and missing_base else None
        return _PreparedPush(declared, derived, binding, sent, lacking)

    def _same_content(
        self, tx: Reads, adapter: AdapterRecord, declared: Manifest, options: PushOptions
    ) -> SameContent | None:
        """The version to return instead of a new one. A base that the checks refuse is not bound."""
        same = find_same_content(tx, adapter, declared) if options.reuse else None
        return None if same and same.missing_base and options.force_reason else same

    def _binding(self, version: VersionRecord, base: Digest, sent: SentFiles | None) -> Binding:
        from adaptry.storage.local.base_binding import derive_binding  # few pushes need it

        return derive_binding(self.context, version, base, sent.content if sent else None)

    def _commit(
        self, name: AdapterName, prepared: _PreparedPush, options: PushOptions, tx: Transaction
    ) -> PushResult:
        """Makes the version visible, with its base, metrics, alias and event. Raises `StaleState`."""
        set_actor(tx, self.context.identity)
        adapter = self._pushable(tx, name, options)

        def go_on() -> PushResult:
            if prepared.sent:
                prepared.sent.add_ownership(tx, prepared.lacking)
            return self._number(tx, adapter, name, prepared, options)

        made = self.context.run_once(tx, PushResult, go_on)
        reach("revisions.before_commit")
        return made

    def _number(
        self,
        tx: Transaction,
        adapter: AdapterRecord | None,
        name: AdapterName,
        prepared: _PreparedPush,
        options: PushOptions,
    ) -> PushResult:
        scope, declared, derived = self.context.read_scope(tx), prepared.declared, prepared.derived
        stored = known_version(tx, adapter, declared.digest) if adapter else None
        is_new = stored is None
        if stored is None:
            if derived is None or find_base(tx, scope, declared, derived[0].spec.base_name) != derived[1]:
                raise StaleState
            adapter = adapter or self.context.create_adapter_record(tx, name, AdapterEdit())
            stored = self.insert(tx, adapter, derived[0])
            set_licences(self.context, tx, adapter, derived[0].licences)
            report = derived[0].base_check.report
        else:
            assert adapter is not None
            commits.store_revision(tx, declared)  # also repairs a damaged row
            if binding := prepared.binding:
                if not binding.is_current(self.context, tx, stored):
                    raise StaleState
                binding.store(self.context, tx, adapter, stored)
            report = versions.report(tx, stored)
        self._attach(tx, adapter, stored, options)
        is_bare = is_new and options.alias is None and not options.metrics
        info = without_labels(tx, stored.key) if is_bare else by_keys(tx, [stored.key])[0]
        version, report = hide_base_in_report(tx, scope, info, report)
        return PushResult(version=version, is_new=is_new, report=report)

    def _pushable(self, tx: Reads, name: AdapterName, options: PushOptions) -> AdapterRecord | None:
        """The adapter, or None if the push creates it. Raises `NotFound`, `PermissionDenied`."""
        self.context.require("push", name)
        if options.metrics:
            self.context.require("evidence.add", name)
        if options.alias is not None:
            self.context.require("alias.move", name, alias=options.alias)
        adapter = adapters.find(tx, name)
        if adapter is None and not options.create:
            raise NotFound(f"no adapter {name}; create it first, or allow the push to create it")
        return adapter

    def insert(
        self, tx: Transaction, adapter: AdapterRecord, admission: Admission, note: CommitNote | None = None
    ) -> VersionRecord:
        """Stores the version and its commit on `main`; `note` is that of a commit to `main`."""
        self.context.require_own_name(tx, adapter)
        require_version(self.context, tx, adapter.name.namespace)
        claim_files(tx, adapter.name, admission.manifest)
        if held := states.find_withdrawn_weights(tx, adapter.name.namespace, admission.weights):
            raise CheckFailed(
                f"these weights cannot be pushed: they are those of {held.label}, and"
                f" {state_warning(held)}; to allow them again: adaptry restore {held.label} --reason TEXT"
            )
        now, by = self.context.clock(), self.context.identity.name
        for file, inspection in admission.inspections.items():
            inspections.store(tx, file, inspection)
        stored = versions.insert(tx, adapter, admission, now, by)
        format = detect_format(entry.path for entry in admission.manifest.files)
        entry = admission.manifest.file(format.weights) if format else None
        assert entry is not None
        files.store_weights_digest(tx, entry.sha256, admission.weights)
        made = ""
        if recipe := admission.manifest.recipe:
            from adaptry.core.recipe_summary import summarise_recipe  # few pushes need it

            made = summarise_recipe(recipe)
        commit_note = note or CommitNote(title=f"Version {stored.number}", message=made)
        parent = commits.find_by_ref(tx, adapter, MAIN)
        commit = commits.insert(
            tx, adapter, MAIN, stored.digest, commit_note, stored.number, at=now, by=by, parent=parent
        )
        git_refs.put(tx, adapter, MAIN, "branch", commit, now, by)
        if recall_claims.find(tx, adapter.name, stored.digest):
            from adaptry.storage.local.forgotten_recalls import quarantine_forgotten  # after a restore

            quarantine_forgotten(tx, stored.key, adapter.name, stored.digest, now)
        events.record(
            tx,
            "version.pushed",
            at=now,
            by=by,
            adapter=adapter,
            number=stored.number,
            detail={
                "digest": stored.digest,
                "base": admission.base_check.base_id,
                "base_status": admission.base_check.status,
                "forced": admission.forced,
                "title": note.title if note else None,
                "made": made or None,
                "parents": " ".join(map(str, admission.manifest.parents)) or None,
            },
        )
        return stored

    def _attach(
        self, tx: Transaction, adapter: AdapterRecord, stored: VersionRecord, options: PushOptions
    ) -> None:
        """Stores the metrics and alias of a push, without repeating an earlier attempt of the same push."""
        now, by = self.context.clock(), self.context.identity.name
        have = metrics.newest(tx, stored) if options.metrics else {}
        fresh = {name: value for name, value in options.metrics.items() if have.get(name) != value}
        if fresh:
            metrics.append(tx, stored, fresh, now, by)
            events.record(
                tx, "metrics.logged", at=now, by=by, adapter=adapter, number=stored.number, detail=fresh
            )
        if options.alias is not None:
            from adaptry.storage.local.aliases import point_alias
            from adaptry.storage.local.gate_facts import Move

            found = aliases.find(tx, adapter, options.alias)
            if found is None or found.version != stored.key:
                try:
                    point_alias(self.context, tx, Move(adapter, options.alias, stored, found, by))
                except CheckFailed as error:
                    raise CheckFailed(
                        f"{error.message}. Nothing was pushed: push without the alias, add evidence, then"
                        f" promote: adaptry promote {adapter.name} --to {options.alias}"
                    ) from None


def known_version(tx: Reads, adapter: AdapterRecord, digest: Digest) -> VersionRecord | None:
    """The version of a revision, if there is one."""
    return find(tx, adapter, ByDigest(digest.hex))


def claim_files(tx: Transaction, name: AdapterName, manifest: Manifest) -> None:
    """Like `require_files`, in the transaction of the commit: from then on, the files are needed."""
    have = files.clear_unneeded(tx, name, [entry.sha256 for entry in manifest.files])
    require_all(have, name, manifest)
