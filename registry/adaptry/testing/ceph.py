"""A second real S3 server for tests: Ceph's gateway, one monitor and one in-memory store, in its own folder.

It accepts checksums without comparing them, and ignores a condition at the end of a multipart upload: our
code must not rely on either. Its programs come with Debian (`REMEDY`) and run unchanged, on free ports of
this machine; it starts in half a minute.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from adaptry.core.errors import MissingDependency, Unavailable
from adaptry.testing.buckets import CREDENTIALS, BucketServer, wait_for
from adaptry.testing.ports import free_ports

PROGRAMS = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "ceph-authtool", "monmaptool")
REMEDY = (
    "no Ceph here (radosgw, ceph-mon, ceph-osd):"
    " apt-get install radosgw ceph-mon ceph-osd ceph-mgr ceph-common"
)
_SECONDS = 90
_MEMORY = 2 << 30

# `osd_class_dir`: Debian's default is a relative path that does not exist. Authentication stays on: without
# it the gateway hangs.
_CONFIG = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon_v2},v1:127.0.0.1:{mon_v1}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_allow_insecure_global_id_reclaim = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_class_dir = {classes}
osd_objectstore = memstore
memstore_device_bytes = {memory}
mon_allow_pool_size_one = true
mon_pg_warn_min_per_osd = 0
mon_data_avail_crit = 1
mon_data_avail_warn = 2
ms_bind_ipv6 = false
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
log_file = {folder}/log/$name.log
mon_data = {folder}/mon
osd_data = {folder}/osd
keyring = {folder}/keyring
rgw_frontends = beast endpoint=127.0.0.1:{port}
pid_file =
"""


class Ceph(BucketServer):
    """A running Ceph cluster with an S3 gateway."""


def is_installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


@contextmanager
def run_ceph(folder: Path) -> Iterator[Ceph]:
    """Starts the cluster, waits until it stores objects, and stops it after the block. Raises
    `MissingDependency`, and `Unavailable` if it fails.
    """
    if not is_installed():
        raise MissingDependency(REMEDY)
    mon_v2, mon_v1, port = free_ports(3)
    cluster = _Cluster(folder)
    cluster.configure(mon_v2=mon_v2, mon_v1=mon_v1, port=port)
    with ExitStack() as ends:
        cluster.start_monitor(ends, mon_v2, mon_v1)
        cluster.start_store(ends)
        cluster.start_gateway(ends, port)
        found = Ceph(f"http://127.0.0.1:{port}")
        found.make_bucket()
        yield found


class _Cluster:
    """The programs of one cluster, each started with the path of its configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "ceph.conf"
        self.keyring = folder / "keyring"
        self.id = str(uuid.uuid4())

    def configure(self, **ports: int) -> None:
        for name in ("mon", "osd", "run", "log"):
            (self.folder / name).mkdir()
        classes = next(Path("/usr/lib").glob("*/rados-classes"), Path("/usr/lib/rados-classes"))
        text = _CONFIG.format(folder=self.folder, fsid=self.id, classes=classes, memory=_MEMORY, **ports)
        self.config.write_text(text)

    def start_monitor(self, ends: ExitStack, v2: int, v1: int) -> None:
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self.run(
            "ceph-authtool", "--create-keyring", self.keyring, "--gen-key", "-n", "mon.", *everything[:3]
        )
        self.run("ceph-authtool", self.keyring, "--gen-key", "-n", "client.admin", *everything)
        where = f"[v2:127.0.0.1:{v2},v1:127.0.0.1:{v1}]"
        map_ = self.folder / "monmap"
        self.run("monmaptool", "--create", "--addv", "a", where, "--fsid", self.id, map_)
        monitor = ("ceph-mon", "-c", self.config, "-i", "a")
        self.run(*monitor, "--mkfs", "--monmap", map_, "--keyring", self.keyring)
        wait_for(self.start(ends, *monitor, "-f"), v2, self.folder / "ceph-mon", _SECONDS)

    def start_store(self, ends: ExitStack) -> None:
        id = str(uuid.uuid4())
        self.ask("osd", "new", id)
        may = ("mon", "allow *", "osd", "allow *")
        (self.folder / "osd" / "keyring").write_text(self.ask("auth", "get-or-create", "osd.0", *may))
        self.run("ceph-authtool", self.keyring, "--import-keyring", self.folder / "osd" / "keyring")
        store = ("ceph-osd", "-c", self.config, "-i", "0")
        self.run(*store, "--mkfs", "--osd-uuid", id, "--no-mon-config")
        self.start(ends, *store, "-f")
        end = time.monotonic() + _SECONDS
        while "1 up" not in self.ask("osd", "stat"):
            if time.monotonic() > end:
                raise Unavailable("Ceph's store did not start")
            time.sleep(0.2)

    def start_gateway(self, ends: ExitStack, port: int) -> None:
        key, secret = CREDENTIALS.values()
        names = ("--uid=tests", "--display-name=tests", f"--access-key={key}", f"--secret-key={secret}")
        self.run("radosgw-admin", "-c", self.config, "user", "create", *names)
        gateway = ("radosgw", "-c", self.config, "-n", "client.admin", "--keyring", self.keyring, "-f")
        wait_for(self.start(ends, *gateway), port, self.folder / "radosgw", _SECONDS)

    def ask(self, *words: str) -> str:
        return self.run("ceph", "-c", self.config, *words)

    def run(self, *command: str | Path) -> str:
        """Runs a command; returns its output. Raises `Unavailable`."""
        try:
            done = subprocess.run(
                [str(word) for word in command],
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS,
                cwd=self.folder,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"{command[0]} did not end") from error
        if done.returncode:
            raise Unavailable(f"{command[0]}: {done.stderr[-2000:]}")
        return done.stdout

    def start(self, ends: ExitStack, *command: str | Path) -> subprocess.Popen[bytes]:
        """Starts a program that runs until the stack unwinds; its output goes to a file with its name."""
        with (self.folder / str(command[0])).open("wb") as log:
            words = [str(word) for word in command]
            process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.folder)
        ends.callback(process.wait)
        ends.callback(process.kill)  # its data is no longer needed
        return process
