"""Each kind of job does what the command of that name does, with exactly the rights of its submitter."""

from __future__ import annotations

from pathlib import Path

import pytest

from adaptry import open_dir
from adaptry.core.errors import Invalid, NotFound
from adaptry.core.identity import Identity
from adaptry.core.refs import Ref
from adaptry.operations.transfer import push
from adaptry.registry.job_types.preview import CombinationPreview
from adaptry.registry.job_types.records import JobInfo, JobOrder
from adaptry.registry.job_types.tasks import argument_names, parse_task
from adaptry.storage.connect import open_local
from adaptry.storage.local import LocalRegistry
from adaptry.testing.contract.fixtures import ADA, EVE
from adaptry.testing.runners import RunnerProcess
from adaptry.testing.samples import random_tensor, tiny_lora

EVERYWHERE = Identity.with_role("ops", "admin", ("*",))


def test_one_runner_runs_every_kind_with_the_submitters_rights(
    busy: LocalRegistry, data: Path, tmp_path: Path
) -> None:
    push(busy, open_dir(tiny_lora(tmp_path / "voice", seed=5, hidden=32)), "acme/voice")
    push(
        busy, open_dir(tiny_lora(tmp_path / "rooted", config={"use_rslora": True}, hidden=32)), "acme/rooted"
    )
    magnitudes = {
        f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_magnitude_vector": random_tensor(
            (32,), layer
        )
        for layer in range(2)
        for name in ("q_proj", "v_proj")
    }
    dora = tiny_lora(
        tmp_path / "dora", config={"use_dora": True}, hidden=32, base_name="org/unknown", extra=magnitudes
    )
    push(busy, open_dir(dora), "acme/dora")
    mirror = tmp_path / "mirror"
    asked = {
        "convert": (ADA, {"source": "acme/tone@1", "to": "acme/plain", "rank": 2}),
        "export": (ADA, {"source": "acme/rooted", "runtime": "sglang", "to": "acme/rooted-sglang"}),
        "combine": (ADA, {"inputs": ["acme/tone", "acme/voice=0.5"], "to": "acme/both", "method": "ties"}),
        "preview": (
            ADA,
            {"inputs": ["acme/tone", "acme/voice=0.5"], "to": "acme/both-previewed", "method": "ties"},
        ),
        "weight-statistics": (ADA, {"versions": ["acme/tone", "acme/voice"]}),
        "partly": (ADA, {"versions": ["acme/tone", "acme/dora"]}),
        "unmeasured": (ADA, {"versions": ["acme/dora"]}),
        "fingerprint": (EVERYWHERE, {"base": "org/tiny"}),
        "verify": (EVERYWHERE, {}),
        "gc": (EVERYWHERE, {"grace_hours": 24}),
        "replicate": (EVERYWHERE, {"ref": "acme/tone@1", "remote": "mirror", "to": "acme/tone"}),
        "baseless": (ADA, {"source": "acme/dora", "to": "acme/plain-dora"}),
        "stolen": (EVE, {"source": "acme/tone@1", "to": "evil/tone"}),
        "lossy": (ADA, {"source": "acme/voice", "runtime": "vllm,max_lora_rank=1", "to": "acme/small"}),
        "elsewhere": (EVERYWHERE, {"ref": "acme/tone@1", "remote": "unheard-of", "to": "acme/tone"}),
        "evaluate": (EVERYWHERE, {"ref": "acme/tone@1", "tasks": ["gsm8k"], "limit": 2}),
    }
    kinds = {"baseless": "convert", "stolen": "convert", "lossy": "export", "elsewhere": "replicate"}
    kinds |= dict.fromkeys(("partly", "unmeasured"), "weight-statistics")
    ids = {
        name: busy.on_behalf_of(who)
        .jobs.submit(JobOrder(kind=kinds.get(name, name), task=task, priority=9 if name == "verify" else 5))
        .id
        for name, (who, task) in asked.items()
    }

    mirror.mkdir()
    assert RunnerProcess(data, "--once", "--concurrency", "2", "--remote", f"mirror={mirror}").wait() == 0

    jobs = {name: busy.jobs.get(id) for name, id in ids.items()}
    states = {name: job.state for name, job in jobs.items()}
    assert states == {
        **dict.fromkeys(
            [
                *("convert", "combine", "preview", "export", "weight-statistics"),
                *("partly", "fingerprint", "verify", "gc", "replicate"),
            ],
            "done",
        ),
        **dict.fromkeys(["baseless", "stolen", "lossy", "elsewhere", "unmeasured", "evaluate"], "failed"),
    }, {name: job.error for name, job in jobs.items()}
    assert result(jobs["convert"])["version"] == "acme/plain@1"
    assert [module.rank for module in busy.versions.detail(Ref.parse("acme/plain")).spec.modules] == [2] * 4
    exported = result(jobs["export"])
    assert (exported["version"], exported["repairs"]) == ("acme/rooted-sglang@1", ["fold"])
    assert len(busy.versions.detail(Ref.parse("acme/both")).manifest.parents) == 2
    seen = CombinationPreview.model_validate(result(jobs["preview"]))
    assert (seen.inputs, seen.total) == (("acme/tone@1", "acme/voice@1"), 4)
    assert seen.conflict is not None
    assert 0 < seen.conflict < 1
    assert all(module.inputs == 2 and module.column_overlap is not None for module in seen.modules)
    with pytest.raises(NotFound):
        busy.versions.get(Ref.parse("acme/both-previewed"))
    measured = [result(jobs[name]) for name in ("weight-statistics", "partly")]
    assert [found["compared"] for found in measured] == [1, 0]
    tone, voice = Ref.parse("acme/tone@1"), Ref.parse("acme/voice@1")
    assert busy.versions.weight_statistics(tone).norm > 0
    assert busy.versions.weight_distance(voice, tone).distance > 0
    assert busy.bases.get("org/tiny").roots is not None
    assert result(jobs["verify"])["problems"] == 0
    # Ada may not see the private base, and `verify` checks with every base visible.
    assert all(line.endswith("it loses base_unknown") for line in result(jobs["verify"])["found"])
    assert result(jobs["gc"])["deleted"] == 0
    there = open_local(mirror)
    assert (
        there.versions.get(Ref.parse("acme/tone")).digest
        == busy.versions.get(Ref.parse("acme/tone@1")).digest
    )
    there.close()
    assert fault(jobs["stolen"]) == ("not_found", "no adapter acme/tone")
    assert fault(jobs["elsewhere"])[0] == "not_found"
    assert "pip install 'adaptry[eval]'" in fault(jobs["evaluate"])[1]  # these tests have no lm-eval
    assert "or allow it: max_error=" in fault(jobs["lossy"])[1], "a job has fields, not options"
    for name in ("baseless", "unmeasured"):
        assert fault(jobs[name])[1].endswith(
            "record the version's base with `adaptry base bind REF BASE` and submit the job again"
        ), "a job takes the base from the version"
    assert busy.jobs.runners() == ()


@pytest.mark.parametrize(
    ("kind", "sentence", "expected"),
    [
        ("merge", "pass --other-base if you want it", "pass other_base=true if you want it"),
        ("merge", "pass --base-copy original to merge", "pass base_copy=original to merge"),
        ("convert", "pass --rank N, or --method svd", "pass rank=N, or --method svd"),
        (
            "convert",
            "pass the base with --base (a folder), or --drop-bias to leave them out",
            "record the version's base with `adaptry base bind REF BASE` and submit the job again,"
            " or drop_bias=true to leave them out",
        ),
        ("merge", "pass the base with --base (a folder)", "pass the base with base=… (a folder)"),
        ("convert", "run `adaptry resize REF --rank 8`", "run `adaptry resize REF --rank 8`"),
        ("unheard-of", "pass --rank N", "pass --rank N"),
    ],
)
def test_errors_for_a_jobs_submitter_name_fields(kind: str, sentence: str, expected: str) -> None:
    assert argument_names(kind).in_sentence(sentence) == expected


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tasks": ["gsm8k,arc"]}, "tasks"),
        ({"tasks": ["../task.yaml"]}, "tasks"),
        ({"tasks": []}, "tasks"),
        ({"tasks": ["gsm8k"], "limit": 0}, "limit"),
        ({"tasks": ["gsm8k"], "base": "./base"}, "not a folder"),
        ({"tasks": ["gsm8k"], "include_path": "/etc"}, "include_path"),
    ],
)
def test_an_evaluation_takes_names_and_no_paths(fields: dict[str, object], says: str) -> None:
    with pytest.raises(Invalid, match=says):
        parse_task("evaluate", {"ref": "acme/tone@1", **fields})


def result(job: JobInfo) -> dict[str, object]:
    assert job.result is not None
    return job.result


def fault(job: JobInfo) -> tuple[str, str]:
    assert job.error is not None
    return job.error.code, job.error.message


def test_a_missing_field_is_named() -> None:
    with pytest.raises(Invalid, match=r"source of convert is missing \(its fields are source, to, "):
        parse_task("convert", {})
