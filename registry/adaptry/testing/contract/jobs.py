"""The promises about jobs that hold without runners."""

from __future__ import annotations

from dataclasses import replace

import pytest

from adaptry.core.access.grants import Limit
from adaptry.core.access.resources import Resource
from adaptry.core.errors import Conflict, Invalid, NotFound, PermissionDenied
from adaptry.core.identity import ANONYMOUS, LOCAL, Identity
from adaptry.registry.interface import Registry
from adaptry.registry.job_types.records import JobNeeds, JobOrder
from adaptry.testing.contract.fixtures import ADA, EVE, RON, ContractFixtures, MakeRegistry

CONVERT = JobOrder(kind="convert", task={"source": "acme/tone@1", "to": "acme/plain"})
VERIFY = JobOrder(kind="verify", task={})
MERGE = {"base": "o/m", "inputs": ["a/b"], "to": "o/x"}
COMBINE = {"inputs": ["acme/tone", "acme/voice"], "to": "acme/both"}


class JobsContract(ContractFixtures):
    """Submitting, listing, cancelling and retrying jobs, and access to them."""

    def test_a_submitted_job_is_queued_and_shows_its_task(self, make_registry: MakeRegistry) -> None:
        needs = JobNeeds(device="cuda", tag="big", memory=8 << 30)
        order = CONVERT.model_copy(update={"needs": needs, "priority": 2})

        job = make_registry(ADA).jobs.submit(order)

        said = (job.state, job.kind, job.task, job.namespace, job.needs, job.priority, job.submitted_by)
        assert said == ("queued", "convert", CONVERT.task, "acme", needs, 2, "ada")
        assert make_registry(RON).jobs.get(job.id) == job
        assert make_registry(RON).jobs.log(job.id).items == ()
        assert (job.started_at, job.finished_at, job.result, job.error) == (None, None, None, None)

    def test_jobs_are_listed_newest_first_page_by_page_and_by_state(
        self, make_registry: MakeRegistry
    ) -> None:
        registry = make_registry(ADA)
        made = [registry.jobs.submit(CONVERT).id for _ in range(5)]
        registry.jobs.cancel(made[1])

        first = registry.jobs.list(limit=2)
        rest = registry.jobs.list(cursor=first.next, limit=3)

        assert [job.id for job in (*first.items, *rest.items)] == made[::-1]
        assert rest.next is None
        assert [job.id for job in registry.jobs.list("cancelled").items] == [made[1]]
        assert len(registry.jobs.list("queued").items) == 4
        with pytest.raises(Invalid, match="cursor"):
            registry.jobs.list("queued", cursor=first.next)
        with pytest.raises(Invalid, match="1 to 200"):
            registry.jobs.list(limit=0)

    def test_a_cancelled_job_stays_so_until_it_is_tried_again(self, make_registry: MakeRegistry) -> None:
        registry = make_registry(ADA)
        job = registry.jobs.submit(CONVERT)
        with pytest.raises(Conflict, match="queued"):
            registry.jobs.retry(job.id)

        cancelled = registry.jobs.cancel(job.id)

        assert cancelled.state == "cancelled"
        assert cancelled.finished_at is not None
        assert registry.jobs.cancel(job.id) == cancelled
        again = registry.jobs.retry(job.id)
        assert (again.id, again.state, again.attempts, again.finished_at) == (job.id, "queued", 2, None)

    @pytest.mark.parametrize(
        ("order", "said"),
        [
            (JobOrder(kind="dance", task={}), "unknown kind of job 'dance' .one of: merge, combine"),
            (JobOrder(kind="convert", task={"source": "acme/tone"}), "to of convert is missing"),
            (JobOrder(kind="convert", task={**CONVERT.task, "loudly": True}), "loudly"),
            (JobOrder(kind="convert", task={**CONVERT.task, "source": "./out"}), "not folders"),
            (JobOrder(kind="convert", task={**CONVERT.task, "source": "no ref"}), "a ref is"),
            (JobOrder(kind="merge", task={"base": "/etc", "inputs": ["a/b"], "to": "o/m"}), "not a folder"),
            (JobOrder(kind="merge", task={"base": "o/m", "inputs": [], "to": "o/x"}), "inputs"),
            (JobOrder(kind="merge", task={"base": "o/m", "inputs": ["../a=2"], "to": "o/x"}), "not folders"),
            (JobOrder(kind="merge", task={"base": "o/m", "inputs": ["a/b=nan"], "to": "o/x"}), "weight"),
            (JobOrder(kind="merge", task={"base": "o/m", "inputs": ["a/b=0"], "to": "o/x"}), "weights are 0"),
            (JobOrder(kind="merge", task={**MERGE, "method": "nonsense"}), "one of: linear"),
            (JobOrder(kind="combine", task={**COMBINE, "method": "nonsense"}), "one of: linear"),
            (
                JobOrder(kind="combine", task={**COMBINE, "parameters": {"density": 0.5}}),
                "no parameter 'density'",
            ),
            (
                JobOrder(kind="combine", task={**COMBINE, "method": "ties", "parameters": {"density": 2}}),
                "from 0 to 1",
            ),
            (JobOrder(kind="combine", task={**COMBINE, "rank": 4, "energy": 0.9}), "not both"),
            (JobOrder(kind="convert", task={**CONVERT.task, "rank": 4, "energy": 0.9}), "not both"),
        ],
    )
    def test_a_malformed_job_is_refused_on_submission(
        self, registry: Registry, order: JobOrder, said: str
    ) -> None:
        with pytest.raises(Invalid, match=said):
            registry.jobs.submit(order)
        assert registry.jobs.list().items == ()

    def test_jobs_belong_to_namespaces(self, make_registry: MakeRegistry) -> None:
        job = make_registry(ADA).jobs.submit(CONVERT)
        for stranger in (EVE, ANONYMOUS):
            registry = make_registry(stranger)
            assert registry.jobs.list().items == ()
            for ask in (registry.jobs.get, registry.jobs.log, registry.jobs.cancel, registry.jobs.retry):
                with pytest.raises(NotFound, match="no job"):
                    ask(job.id)
            with pytest.raises(PermissionDenied):
                registry.jobs.submit(CONVERT)
        reader = make_registry(RON)
        assert [each.id for each in reader.jobs.list().items] == [job.id]
        for change in (reader.jobs.cancel, reader.jobs.retry):
            with pytest.raises(PermissionDenied):
                change(job.id)
        with pytest.raises(PermissionDenied):
            reader.jobs.submit(CONVERT)
        assert make_registry(LOCAL).jobs.get(job.id).state == "queued"

    def test_a_job_is_retried_only_by_its_submitter_and_administrators(
        self, make_registry: MakeRegistry
    ) -> None:
        job = make_registry(ADA).jobs.submit(CONVERT)
        colleague = make_registry(Identity.with_role("bea", "contributor", ("acme",)))

        assert colleague.jobs.cancel(job.id).state == "cancelled"
        with pytest.raises(PermissionDenied, match="rights of ada, who submitted it"):
            colleague.jobs.retry(job.id)

        assert make_registry(RON).jobs.get(job.id).state == "cancelled"
        assert make_registry(LOCAL).jobs.retry(job.id).submitted_by == "ada"

    def test_a_token_retries_only_jobs_within_its_limits(self, make_registry: MakeRegistry) -> None:
        def token(*permissions: str, on: str = "acme") -> Registry:
            return make_registry(replace(ADA, limit=Limit(permissions, (Resource.parse(on),))))

        running, pushing = token("job.run"), token("contributor")
        job = pushing.jobs.submit(CONVERT)

        assert running.jobs.cancel(job.id).state == "cancelled"
        with pytest.raises(PermissionDenied, match="submitted with a token that allows more than this one"):
            running.jobs.retry(job.id)
        assert pushing.jobs.get(job.id).state == "cancelled"

        for wide in (pushing, token("writer"), token("job.run", "push", "evidence.add", on="ac*")):
            assert wide.jobs.retry(job.id).state == "queued"
            wide.jobs.cancel(job.id)

        everywhere = token("contributor", on="*").jobs.submit(CONVERT)
        pushing.jobs.cancel(everywhere.id)
        with pytest.raises(PermissionDenied, match="retry it with an unlimited token"):
            pushing.jobs.retry(everywhere.id)

    def test_only_administrators_submit_jobs_on_shared_data(self, make_registry: MakeRegistry) -> None:
        job = make_registry(LOCAL).jobs.submit(VERIFY)
        merge = JobOrder(kind="merge", task={"base": "o/m", "inputs": ["acme/tone"], "to": "acme/merged"})
        for less in (
            ADA,
            Identity.with_role("amy", "admin", ("acme",)),
            Identity.with_role("wil", "writer", ("*",)),
        ):
            registry = make_registry(less)
            for order in (VERIFY, merge):
                with pytest.raises(PermissionDenied, match="administrator"):
                    registry.jobs.submit(order)
        with pytest.raises(NotFound):
            make_registry(ADA).jobs.get(job.id)

    def test_schedules_are_stored_replaced_and_deleted(self, make_registry: MakeRegistry) -> None:
        ada = make_registry(ADA)
        ada.jobs.schedule("nightly", "0 3 * * *", CONVERT)

        again = ada.jobs.schedule("nightly", "30  2 * * 1-5", CONVERT)

        assert (again.name, again.cron, again.order, again.by) == ("nightly", "30 2 * * 1-5", CONVERT, "ada")
        assert ada.jobs.schedules() == make_registry(RON).jobs.schedules() == (again,)
        assert ada.jobs.list().items == ()
        ada.jobs.unschedule("nightly")
        assert ada.jobs.schedules() == ()

    def test_schedule_names_are_unique_per_namespace(self, make_registry: MakeRegistry) -> None:
        eve, ada = make_registry(EVE), make_registry(ADA)
        evil = CONVERT.model_copy(
            update={
                "task": {key: str(value).replace("acme/", "evil/") for key, value in CONVERT.task.items()}
            }
        )
        eve.jobs.schedule("nightly", "0 1 * * *", evil)  # eve uses the name first
        ada.jobs.schedule("nightly", "0 3 * * *", CONVERT)
        assert [one.cron for one in ada.jobs.schedules()] == ["0 3 * * *"]
        operator = make_registry(LOCAL)
        assert [(one.namespace, one.name) for one in operator.jobs.schedules()] == [
            ("acme", "nightly"),
            ("evil", "nightly"),
        ]
        with pytest.raises(Conflict, match="several namespaces have a schedule nightly: acme, evil"):
            operator.jobs.unschedule("nightly")
        ada.jobs.unschedule("nightly")
        with pytest.raises(NotFound):
            ada.jobs.unschedule("nightly", "evil")
        operator.jobs.unschedule("nightly", "evil")
        assert operator.jobs.schedules() == ()

    def test_a_schedule_that_is_never_due_is_refused(self, make_registry: MakeRegistry) -> None:
        ada = make_registry(ADA)
        for never in ("0 0 30 2 *", "* * 31 4,6,9,11 *"):
            with pytest.raises(Invalid, match="never comes"):
                ada.jobs.schedule("nightly", never, CONVERT)
        assert ada.jobs.schedules() == ()
        for rare in ("0 0 29 2 *", "0 0 30 2 1", "0 0 */31 2 *", "0 0 31 4-5 *"):
            ada.jobs.schedule("nightly", rare, CONVERT)

    def test_only_users_who_may_submit_a_job_schedule_it(self, make_registry: MakeRegistry) -> None:
        ada = make_registry(ADA)
        ada.jobs.schedule("nightly", "0 3 * * *", CONVERT)
        with pytest.raises(PermissionDenied):
            ada.jobs.schedule("other", "0 3 * * *", VERIFY)
        assert make_registry(EVE).jobs.schedules() == make_registry(ANONYMOUS).jobs.schedules() == ()
        with pytest.raises(NotFound):
            make_registry(EVE).jobs.unschedule("nightly")
        evil = CONVERT.model_copy(update={"task": {**CONVERT.task, "to": "evil/plain"}})
        make_registry(EVE).jobs.schedule("nightly", "* * * * *", evil)  # names are per namespace
        with pytest.raises(PermissionDenied):
            make_registry(RON).jobs.unschedule("nightly")
        assert len(ada.jobs.schedules()) == 1

    @pytest.mark.parametrize(
        "cron",
        ["0 3 * *", "61 * * * *", "x * * * *", "5-1 * * * *", "*/0 * * * *", "* * * * MON", "0 3 * * * *"],
    )
    def test_a_malformed_cron_expression_is_refused(self, registry: Registry, cron: str) -> None:
        with pytest.raises(Invalid, match="not a schedule"):
            registry.jobs.schedule("other", cron, CONVERT)
        with pytest.raises(Invalid, match="name"):
            registry.jobs.schedule("two words", "0 3 * * *", CONVERT)
        assert registry.jobs.schedules() == ()

    def test_an_unknown_job_is_not_found(self, registry: Registry) -> None:
        for ask in (registry.jobs.get, registry.jobs.log, registry.jobs.cancel, registry.jobs.retry):
            with pytest.raises(NotFound):
                ask("job-0000000000000000")

    def test_a_registry_without_runners_lists_none(self, make_registry: MakeRegistry) -> None:
        for identity in (LOCAL, ANONYMOUS):
            assert make_registry(identity).jobs.runners() == ()
