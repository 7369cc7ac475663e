"""The compose and Kubernetes examples with an engine are valid for their engines, and give vLLM's plugin
settings that it reads. None of these engines is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "examples" / "serving"
COMPOSE = yaml.safe_load((SERVING / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((SERVING / "kubernetes" / "vllm.yaml").read_text()))


def test_the_serving_compose_file_matches_its_schema_and_existing_files() -> None:
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)
    for service in COMPOSE["services"].values():
        context = SERVING / service["build"]["context"]
        assert (context / service["build"].get("dockerfile", "Dockerfile")).is_file()
        assert set(service["secrets"]) <= set(COMPOSE["secrets"])
        assert {each.partition(":")[0] for each in service["volumes"]} <= set(COMPOSE["volumes"])


@pytest.mark.parametrize("resource", MANIFESTS, ids=lambda one: str(one["kind"]))
def test_a_serving_manifest_matches_the_kubernetes_schema(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.33", strict=True)


def test_compose_and_kubernetes_start_vllm_with_the_same_documented_settings() -> None:
    (stateful, _) = MANIFESTS
    container = stateful["spec"]["template"]["spec"]["containers"][0]
    service = COMPOSE["services"]["vllm"]
    assert container["args"][2:] == service["command"][2:]
    settings = {one["name"] for one in container["env"]}
    assert settings == set(service["environment"])
    documented = (ROOT / "docs" / "vllm.md").read_text()
    assert [name for name in settings if name.removesuffix("_FILE") not in documented] == []


def test_every_mount_of_the_pod_has_its_volume() -> None:
    spec = MANIFESTS[0]["spec"]
    pod = spec["template"]["spec"]
    claims = [one["metadata"]["name"] for one in spec["volumeClaimTemplates"]]
    volumes = {*claims, *(one["name"] for one in pod["volumes"])}
    assert {one["name"] for one in pod["containers"][0]["volumeMounts"]} == volumes
