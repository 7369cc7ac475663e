"""Third-party servers, isolated as in compose.yaml: real programs in their own mount and network namespaces.

A container engine would do the same with the images of these servers: a read-only root file system, writable
tmpfs and volumes, only the capabilities of `cap_add`, no new privileges, and ports on the container's
interfaces. The tests need root, as a container engine does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
TOOLS = ("unshare", "setpriv", "setcap", "ip", "ss")
PROGRAMS = Path(sys.executable).parent
OTHER = "10.9.9.9"  # the container's address for the other services

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
        reason=f"needs root, and {', '.join(TOOLS)}",
    ),
]

AREA = "/mnt"  # the folders at a container's root, except /tmp, whose path is fixed in programs
SETUP = f"""
set -eu
ip link set lo up && ip address add {OTHER}/32 dev lo
mount --make-rprivate /
mount -t tmpfs none {AREA} && cp -a "$GIVEN"/. {AREA} && cd {AREA}
mount -t tmpfs none /tmp
for place in /data $WRITABLE; do mkdir -p "{AREA}$place" && mount -t tmpfs none "{AREA}$place"; done
mount -o remount,ro {AREA}
mount -o remount,bind,ro /
! touch {AREA}/written 2>/tmp/refused
! touch /written 2>>/tmp/refused
[ "$(grep -c "Read-only file system" /tmp/refused)" = 2 ]
"""


def locked(name: str, given: Path, then: str) -> str:
    """The output of the shell command `then` in the service's namespaces, where `$LOCK PROGRAM` runs a
    program without capabilities.

    The files of `given` are in `AREA`, of which only `/data` and the service's tmpfs can be written to.
    """
    service = SERVICES[name]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    capabilities = "".join(f",+{each.lower()}" for each in service.get("cap_add", ()))
    run = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP + then],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={
            "PATH": f"{PROGRAMS}:{os.environ['PATH']}",
            "GIVEN": str(given),
            "WRITABLE": " ".join(place for place in service["tmpfs"] if place != "/tmp"),
            "LOCK": f"setpriv --bounding-set -all{capabilities} --inh-caps -all --no-new-privs",
        },
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def placed(words: list[str]) -> str:
    """A command of compose.yaml for the shell, with paths in `AREA`."""
    moved = (word.replace("=/data", f"={AREA}/data").replace("=/run/secrets/", f"={AREA}/") for word in words)
    return shlex.join(moved)


def until(question: str) -> str:
    """A shell command that waits for another to succeed, up to 600 times a tenth of a second."""
    last = "{ cat /tmp/log >&2; exit 8; }"
    return (
        f"tries=0; until {question}; do tries=$((tries + 1)); [ $tries -lt 600 ] || {last}; sleep 0.1; done\n"
    )


def answers(url: str) -> str:
    """A shell command that succeeds if a GET succeeds."""
    code = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=3)"
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} {url} 2>/dev/null"


def test_only_the_s3_gateway_of_seaweedfs_is_reachable_from_other_services(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    make = [
        sys.executable,
        str(ROOT / "examples" / "topology" / "make_secrets.py"),
        str(tmp_path / "secrets"),
    ]
    subprocess.run(make, check=True, capture_output=True)
    shutil.copy(tmp_path / "secrets" / "s3-identities.json", given / "s3-identities")
    server, bucket = SERVICES["s3"], SERVICES["bucket"]
    assert bucket["network_mode"] == "service:s3"
    then = (
        f"$LOCK {placed(server['entrypoint'] + server['command'])} >/tmp/log 2>&1 &\n"
        + until(answers(f"http://{OTHER}:8333/healthz"))
        + f"$LOCK {shlex.join(bucket['entrypoint'] + bucket['command'])} >&2\n"
        + "ss -Hltn | awk '{ print $4 }'\n"
        + f"if {answers(f'http://{OTHER}:9333/cluster/status')}; then echo the master answers; fi\n"
        + f"if {answers(f'http://{OTHER}:8888/')}; then echo the filer answers; fi\n"
        + f"{answers('http://127.0.0.1:8888/buckets/adaptry/')} && echo the bucket is there\n"
    )
    printed = locked("s3", given, then).splitlines()
    listening = {line for line in printed if ":" in line}
    inside = {line for line in listening if line.startswith("127.0.0.1:")}
    ports = ("9333", "19333", "8080", "18080", "8888", "18888")
    assert inside >= {f"127.0.0.1:{port}" for port in ports}
    # SeaweedFS binds the gateway's gRPC port to the gateway's address: compose.yaml determines which services
    # are in that network.
    assert {line.rpartition(":")[2] for line in listening - inside} == {"8333", "18333"}
    assert [line for line in printed if line not in listening] == ["the bucket is there"]


def test_the_balancer_starts_with_the_capability_of_its_image_and_no_other(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    program = shutil.which("caddy", path=f"{PROGRAMS}:{os.environ['PATH']}")
    assert program
    shutil.copy(program, given / "caddy")
    shutil.copy(ROOT / "examples" / "topology" / "Caddyfile", given / "Caddyfile")
    assert SERVICES["balancer"]["command"][:3] == ["caddy", "run", "--config"]
    # The image's Dockerfile gives its program this file capability.
    subprocess.run(["setcap", "cap_net_bind_service=+ep", str(given / "caddy")], check=True)
    then = (
        f"XDG_CONFIG_HOME={AREA}/config XDG_DATA_HOME={AREA}/data $LOCK {AREA}/caddy run --config"
        f" {AREA}/Caddyfile >/tmp/log 2>&1 &\n"
        + until("ss -Hltn | grep -q ':8750 '")
        + "ss -Hltn | awk '{ print $4 }'\n"
        + f"if setpriv --bounding-set -all --no-new-privs {AREA}/caddy version 2>/dev/null; then echo starts"
        " without; fi\n"
    )
    assert locked("balancer", given, then).split() == ["*:8750"]
