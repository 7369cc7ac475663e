"""compose.yaml, the Dockerfile and the Kubernetes manifests are valid for their engines, none of which is
needed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
KUBERNETES = ROOT / "examples" / "kubernetes"
SERVICES: dict[str, Any] = COMPOSE["services"]


def resources() -> list[tuple[str, dict[str, Any]]]:
    """Every resource of the manifests, with the file it is in. (`Any`: YAML.)"""
    return [
        (path.name, one)
        for path in sorted(KUBERNETES.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for one in yaml.safe_load_all(path.read_text())
    ]


def pods() -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for _, one in resources()
        if "template" in one.get("spec", {})
    }


def compose_schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    return schema


def test_the_compose_file_matches_its_schema() -> None:
    jsonschema.Draft7Validator(compose_schema()).validate(COMPOSE)


def test_the_compose_schema_detects_an_unknown_key() -> None:
    wrong = {"services": {"api": {"image": "x", "restarts": "always"}}}
    assert not jsonschema.Draft7Validator(compose_schema()).is_valid(wrong)


def test_the_compose_file_refers_only_to_defined_names() -> None:
    # The reader refuses `name:tag@digest`, which Docker's grammar of references allows.
    without_tags = re.sub(r":[\w.-]+(?=@sha256:)", "", json.dumps(COMPOSE))
    PyCompose.from_json(without_tags).validate()
    for name, service in SERVICES.items():
        conditions = {"service_started", "service_healthy", "service_completed_successfully"}
        for other, said in service.get("depends_on", {}).items():
            assert other in SERVICES, name
            assert said["condition"] in conditions
            assert said["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], (name, other)
    configs = [ROOT / one["file"] for one in COMPOSE["configs"].values()]
    assert [path for path in configs if not path.exists()] == []


def test_no_secret_is_in_the_compose_file_or_in_an_environment() -> None:
    values = [value for service in SERVICES.values() for value in service.get("environment", {}).items()]
    told = {name for name, value in values if re.search(r"PASSWORD|SECRET|TOKEN|CATALOG|CREDENTIALS", name)}
    assert told and all(name.endswith("_FILE") for name in told)


def test_secrets_are_made_once_and_each_that_compose_mounts_is_among_them(tmp_path: Path) -> None:
    script = ROOT / "examples" / "topology" / "make_secrets.py"
    folder = tmp_path / "secrets"
    for _ in range(2):
        subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    first = {path.name: path.read_text() for path in folder.iterdir()}
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == first
    mounted = {one["file"].rpartition("/")[2] for one in COMPOSE["secrets"].values()}
    assert mounted == set(first)
    assert first["postgres-password"].strip() in first["catalog-url"]


CAPABILITIES = {"s3": ["DAC_OVERRIDE"], "balancer": ["NET_BIND_SERVICE"]}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_runs_with_restrictions(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == CAPABILITIES.get(name, [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "pid", "ipc", "devices", "userns_mode"} & set(service)


def test_a_store_is_in_a_network_with_services_that_hold_its_keys_only() -> None:
    keys = {"rows": "catalog-url", "bytes": "s3-credentials"}
    stores = {"rows": "postgres", "bytes": "s3"}
    for network, key in keys.items():
        members = {name for name, service in SERVICES.items() if network in service.get("networks", ())}
        assert members == {
            stores[network],
            *(name for name, service in SERVICES.items() if key in service.get("secrets", ())),
        }
    without = {name for name, service in SERVICES.items() if "networks" not in service}
    assert {name: SERVICES[name]["network_mode"] for name in without} == {"bucket": "service:s3"}


def test_servers_trust_forwarding_headers_only_from_the_balancer() -> None:
    address = SERVICES["balancer"]["networks"]["callers"]["ipv4_address"]
    (callers,) = COMPOSE["networks"]["callers"]["ipam"]["config"]
    for name in ("api-1", "api-2"):
        assert SERVICES[name]["environment"]["ADAPTRY_TRUST_PROXY"] == address
    assert ip_address(address) in ip_network(callers["subnet"])
    assert ip_address(address) not in ip_network(callers["ip_range"]), "another container may get it"


def test_the_balancer_and_prometheus_list_all_servers() -> None:
    servers = {f"{name}:8750" for name in SERVICES if name.startswith("api-")}
    topology = ROOT / "examples" / "topology"
    assert set(re.findall(r"api-\d+:8750", (topology / "Caddyfile").read_text())) == servers
    scraped = yaml.safe_load((topology / "prometheus.yml").read_text())["scrape_configs"]
    assert set(scraped[0]["static_configs"][0]["targets"]) == servers


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    run = subprocess.run(
        [str(hadolint), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "")


def test_images_run_as_an_unprivileged_user_and_the_server_has_no_torch() -> None:
    stages = re.split(r"(?m)^FROM ", (ROOT / "Dockerfile").read_text())[1:]
    made = {stage.split("\n")[0].rpartition(" AS ")[2]: stage for stage in stages}
    for target in ("api", "runner"):
        assert "USER 10001:10001" in made[target]
    assert "ARG REQUIREMENTS=api\n" in made["api"]
    assert "torch" not in (ROOT / "requirements" / "api.txt").read_text()
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} == {
        "api",
        "runner",
    }


@pytest.mark.parametrize(
    ("file", "resource"), resources(), ids=lambda part: part if isinstance(part, str) else part["kind"]
)
def test_a_manifest_matches_the_kubernetes_schema(file: str, resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_the_kubernetes_schema_detects_an_unknown_key() -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"portz": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_kustomize_lists_every_manifest_and_the_secrets_that_pods_read() -> None:
    said = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())
    assert set(said["resources"]) == {file for file, _ in resources()}
    given = {file.rpartition("/")[2] for file in said["secretGenerator"][0]["files"]}
    for name, pod in pods().items():
        (secret,) = [volume["secret"] for volume in pod["spec"]["volumes"] if "secret" in volume]
        assert {item["key"] for item in secret.get("items", ())} <= given, name
    patch = yaml.safe_load((KUBERNETES / "gpu" / "runner.yaml").read_text())
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert patch["metadata"]["name"] in pods()
    assert container["name"] == pods()["adaptry-runner"]["spec"]["containers"][0]["name"]


def test_pods_are_restricted_and_every_mount_has_a_volume() -> None:
    for name, pod in pods().items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        volumes = {volume["name"] for volume in spec["volumes"]}
        for container in spec["containers"]:
            locked = container["securityContext"]
            assert (locked["readOnlyRootFilesystem"], locked["allowPrivilegeEscalation"]) == (
                True,
                False,
            ), name
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes, name
            assert "limits" in container["resources"], name


def test_pods_reach_no_port_of_an_object_store_but_its_s3_gateways() -> None:
    policies = [one["spec"] for _, one in resources() if one["kind"] == "NetworkPolicy"]
    ports = {
        port["port"]
        for policy in policies
        for rule in policy.get("egress", ())
        for port in rule.get("ports", ())
    }
    assert ports == {53, 443, 5432, 8333}


def test_compose_and_kubernetes_call_the_same_commands() -> None:
    ours = {"migrate": "adaptry-migrate", "api-1": "adaptry-api", "runner": "adaptry-runner"}
    for service, pod in ours.items():
        command = pods()[pod]["spec"]["containers"][0]["command"]
        assert command[:2] == SERVICES[service]["command"][:2]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "topology" / "run.py"), *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--compose", "nothere.yaml"), "cannot read"),
        (("--compose", "bad.yaml"), "cannot understand"),
        (("--compose", "empty.yaml"), "no service `balancer`"),
        (("--env", "api-9:X=1"), "not SERVICE:NAME=VALUE: api-9:X=1 (services are api-1"),
        (("--env", "nothing"), "not SERVICE:NAME=VALUE"),
    ],
)
def test_the_script_reports_services_that_it_cannot_start(
    tmp_path: Path, options: tuple[str, str], said: str
) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "empty.yaml").write_text("services: {}")
    told = started(tmp_path, tmp_path / "run", *options)
    assert said in told
    assert "Traceback" not in told


def test_a_topology_is_started_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "take another folder" in started(tmp_path, tmp_path / "file")


def started(folder: Path, run: Path, *options: str) -> str:
    """The output of the script, which starts nothing."""
    scripts = ROOT / "examples" / "topology"
    secrets = folder / "secrets"
    subprocess.run([sys.executable, scripts / "make_secrets.py", secrets], check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, scripts / "run.py", run, *options],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "SECRETS": str(secrets)},
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    return done.stderr


def test_the_script_reports_missing_programs_in_a_sentence(tmp_path: Path) -> None:
    without_secrets = run(str(tmp_path / "run"), SECRETS=str(tmp_path / "nowhere"))
    assert (without_secrets.returncode, without_secrets.stdout) == (1, "")
    assert "make_secrets.py" in without_secrets.stderr and "Traceback" not in without_secrets.stderr
    without_file = run(str(tmp_path / "run"), "--compose", str(tmp_path / "compose.yaml"))
    assert "cannot read" in without_file.stderr and "Traceback" not in without_file.stderr
