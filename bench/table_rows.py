"""The rows of `table.py`: what each bench measures, what it is compared with, and the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

METHODS = (
    "dora", "loha", "lokr", "adalora", "ia3", "vera", "vblora", "hira", "delora", "gralora", "miss", "shira",
    "glora", "c3a", "fourierft", "randlora", "road", "oft", "boft", "hra", "deft", "peanut",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A bound of the median of our figures, in the row's unit, or of the ratios (`×`)."""

    sign: str
    bound: float
    unit: str

    def __str__(self) -> str:
        return f"{self.sign} {self.bound:,g} {self.unit}"

    @property
    def is_ratio(self) -> bool:
        return self.unit == "×"

    def is_met(self, value: float) -> bool:
        return value <= self.bound if self.sign == "≤" else value >= self.bound


@dataclass(frozen=True)
class Row:
    """A row of the printed table. Figures are multiplied by `scale` and shown in `unit`."""

    work: str
    peer: str = ""
    target: Target | None = None
    unit: str = "s"
    scale: float = 1.0


@dataclass(frozen=True)
class Bench:
    """A script, its rows, its options, and those for a `small` run."""

    script: str
    rows: Mapping[str, Row]
    options: Sequence[str] = ()
    small: Sequence[str] = ()
    takes_folder: bool = False


def _most(bound: float, unit: str) -> Target:
    return Target("≤", bound, unit)


def _least(bound: float, unit: str) -> Target:
    return Target("≥", bound, unit)


def _ms(work: str, peer: str, target: Target | None) -> Row:
    return Row(work, peer, target, "ms", 1e3)


def _rate(work: str, peer: str, target: Target | None) -> Row:
    return Row(work, peer, target, "/s")


def _mb(work: str, bound: float) -> Row:
    return Row(work, "", _most(bound, "MB"), "MB", 1e-6)


def _resolve_rows(clients: int, rate: Target | None, p99: Target | None) -> dict[str, Row]:
    plural = "client" if clients == 1 else "clients"
    return {
        f"resolve-{clients}": _rate(f"resolve an alias, {clients} {plural}", "FastAPI + sqlite3", rate),
        f"resolve-{clients}-p99": _ms("  its p99", "", p99),
        f"resolve-{clients}-304": _rate("  nothing new (304)", "with an answer", _least(1, "×")),
    }


BENCHES = (
    Bench(
        "resolve",
        {
            **_resolve_rows(1, None, None),
            **_resolve_rows(8, _least(3000, "/s"), _most(10, "ms")),
            **_resolve_rows(32, _least(3000, "/s"), _most(25, "ms")),
            "search-1-median": _ms("search by base, rank and metric, p50", "", _most(3, "ms")),
            "search-8": _rate("  8 clients, each time another search", "", _least(800, "/s")),
            "search-8-repeated": _rate("  the same search again", "", _least(800, "/s")),
        },
        options=("--rounds", "3", "--seconds", "2"),
        small=("--size", "1000", "--seconds", "1", "--rounds", "1"),
    ),
    Bench(
        "small_push",
        {
            "push-alone": _ms("push of a small adapter", "three flushes", _most(12, "ms")),
            "push-cpu": _ms("  processor time of the server", "", _most(5, "ms")),
            "push-together": _rate("  8 clients", "", _least(250, "/s")),
        },
        small=("--pushes", "16", "--rounds", "1"),
    ),
    Bench(
        "server_memory",
        {
            "memory-load": _mb("memory of a server after a load, 1,000,000 versions", 130),
            "memory-tensors": _mb("  and after an adapter of 89,088 tensors", 130),
        },
        small=("--size", "1000", "--pushes", "3", "--tensors", "600"),
    ),
    Bench(
        "commands",
        {
            "ls": _ms("`adaptry ls` of 200,000 adapters", "python", _most(120, "ms")),
            "push-command": _ms("`adaptry push` of 10 MB", "sha256sum, cp, fsync", _most(180, "ms")),
            "pull-start": _ms("`adaptry pull` of a small adapter", "python", _most(100, "ms")),
        },
        small=("--adapters", "1000", "--rounds", "1"),
    ),
    Bench(
        "transfer",
        {
            "push-embedded": Row("embedded push of 200 MB", "sha256sum, cp, fsync", _most(1.2, "×")),
            "push-http": Row("push of 200 MB over HTTP", "sha256sum, cp, fsync", _most(1.5, "×")),
            "pull": Row("pull of 200 MB, verified", "curl, sha256sum, fsync", _least(0.85, "GB/s"), "GB/s"),
        },
        options=("--rounds", "5"),
        small=("--size-mb", "16", "--rounds", "1"),
    ),
    Bench(
        "hub",
        {
            "hub-snapshots": _rate("`snapshot_download` of 200 adapters", "nginx", _least(0.9, "×")),
        },
        small=("--size-mb", "16", "--adapters", "3", "--rounds", "1"),
    ),
    Bench(
        "hub_reads",
        {
            "hub-snapshot-processor": _ms(
                "  its five requests, processor time of the server", "", _most(1.1, "ms")
            )
        },
        small=("--adapters", "3", "--rounds", "1"),
    ),
    Bench(
        "hub_upload",
        {
            "hub-upload-xet": Row("`hf upload` of 200 MB, by Xet", "the client's own work", _most(1.2, "×")),
            "hub-upload-lfs": Row(
                "`hf upload` of 200 MB, by Git LFS", "the client's own work", _most(1.2, "×")
            ),
        },
        small=("--size-mb", "16", "--rounds", "1"),
    ),
    Bench(
        "hub_commit",
        {"hub-commit": Row("500 small files in one Hub commit", "written, flushed together", _most(2, "s"))},
        small=("--files", "20", "--rounds", "1"),
    ),
    Bench(
        "merge",
        {
            "merge": Row("merge with digests of every file", "cp, flushed", _most(2, "×")),
            "merge-peft": Row("  the first", "PEFT", _most(0.1, "×")),
            "merge-memory": _mb("  its memory", 300),
        },
        options=("--brief",),
        small=("--small", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "merge_methods",
        {
            **{f"merge-{name}": Row(f"merge of {name}", "LoRA", _most(2, "×")) for name in METHODS},
            "merge-methods-memory": _mb("  the most memory of these", 300),
        },
        options=("--methods", ",".join(METHODS), "--no-peft", "--layers", "6", "--rounds", "2"),
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "merge_several",
        {"merge-eight": Row("8 adapters in one pass", "one adapter", _most(1.2, "×"))},
        options=("--brief",),
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "load",
        {
            "load": _ms("load into a live PEFT model", "load_adapter", _most(15, "ms")),
            "hotswap": _ms("hotswap of 10 MB", "read and copy", _most(5, "ms")),
            "hotswap-peft": _ms("  the same", "PEFT's hotswap", _most(5, "ms")),
        },
        small=("--hidden", "64", "--layers", "2", "--rounds", "2"),
    ),
    Bench(
        "fingerprint",
        {
            "fingerprint": Row(
                "fingerprint `--full` of 2.43 GB", "sha256sum twice, all cores", _most(1.2, "×")
            )
        },
        options=("--size", "2432"),
        small=("--size", "64"),
    ),
    Bench(
        "combine",
        {
            "combine-ties_svd": Row(
                "own `ties`, dense, n = 2, a module of 4096²", "PEFT's ties_svd", _most(0.3, "s")
            ),
            "combine-dare_ties_svd": Row("own `dare_ties`", "PEFT's dare_ties_svd", _most(0.3, "s")),
        },
        options=("--only", "dense", "--rounds", "2"),
        small=("--rounds", "1"),
        takes_folder=True,
    ),
    Bench(
        "tiny_jobs",
        {"tiny-jobs": _rate("tiny jobs", "the command", _least(5, "/s"))},
        options=("--rounds", "2"),
        small=("--jobs", "2", "--rounds", "1"),
    ),
    Bench(
        "jobs",
        {
            "merge-job": Row("merge as a job, on a running runner", "the command", _most(1.3, "×")),
            "merge-job-start": Row("  with the start of a runner", "the command"),
        },
        options=("--brief",),
        small=("--layers", "1", "--rounds", "1"),
        takes_folder=True,
    ),
)
