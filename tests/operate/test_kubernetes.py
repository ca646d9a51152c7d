"""What can be told about the manifests in docker/kubernetes without a cluster."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube.models import apps_v1, core_v1, policy_v1
from pydantic import ConfigDict, ValidationError, create_model

from gears.contract.mapping import parse_mappings
from gears.process.settings import Settings
from service.app import create_app

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
MODELS: dict[tuple[str, str], type] = {
    ("apps/v1", "Deployment"): apps_v1.Deployment,
    ("policy/v1", "PodDisruptionBudget"): policy_v1.PodDisruptionBudget,
    ("v1", "ConfigMap"): core_v1.ConfigMap,
    ("v1", "Service"): core_v1.Service,
}
"""Kubernetes's own definitions, as Python classes: https://pypi.org/project/lightkube-models/."""

KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    manifest for name in KUSTOMIZATION["resources"] for manifest in yaml.safe_load_all((FOLDER / name).read_text())
]
DEPLOYMENTS = [manifest for manifest in MANIFESTS if manifest["kind"] == "Deployment"]
[WORKER, API] = [manifest["spec"]["template"]["spec"]["containers"][0] for manifest in DEPLOYMENTS]


def name_of(manifest: dict[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def validate(manifest: dict[str, Any]) -> None:
    """Raise `ValidationError` for what Kubernetes doesn't know, or what it needs and isn't there."""
    fields: dict[str, Any] = {"it": (MODELS[manifest["apiVersion"], manifest["kind"]], ...)}
    model = create_model("Manifest", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    model.model_validate_json(json.dumps({"it": manifest}))


@pytest.mark.parametrize("manifest", MANIFESTS, ids=name_of)
def test_a_manifest_is_as_kubernetes_defines_it(manifest: dict[str, Any]) -> None:
    validate(manifest)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [('"httpGet"', '"httpget"'), ('"port": "http", "path"', '"path"'), ('"replicas": 2', '"replicas": "2"')],
)
def test_a_manifest_that_isnt_is_found(right: str, wrong: str) -> None:
    text = json.dumps(DEPLOYMENTS[1]).replace(
        '"path": "/healthz", "port": "http"', '"port": "http", "path": "/healthz"'
    )
    assert right in text
    with pytest.raises(ValidationError):
        validate(json.loads(text.replace(right, wrong, 1)))


def test_all_files_are_named_and_the_image_is_this_version() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"kustomization.yaml", *KUSTOMIZATION["resources"]}
    [image] = KUSTOMIZATION["images"]
    assert WORKER["image"] == API["image"] == image["name"]
    assert image["newTag"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_what_the_environment_holds_are_settings() -> None:
    settings = {str(field.validation_alias) for field in Settings.model_fields.values()}
    [config] = [manifest for manifest in MANIFESTS if manifest["kind"] == "ConfigMap"]
    assert config["data"].keys() <= settings
    assert parse_mappings(config["data"]["MAPPINGS"])
    for container in (WORKER, API):
        assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
        assert {variable["name"] for variable in container["env"]} <= settings
        assert not [variable for variable in container["env"] if "value" in variable], "these are secrets"


def test_the_docs_make_the_secret_that_is_referred_to() -> None:
    docs = (ROOT / "docs" / "deploy.md").read_text()
    references = [v["valueFrom"]["secretKeyRef"] for container in (WORKER, API) for v in container["env"]]
    assert {reference["name"] for reference in references} == {"writethrough"}
    assert "kubectl create secret generic writethrough " in docs
    assert {reference["key"] for reference in references} == set(re.findall(r"--from-literal=([\w-]+)=", docs))


async def test_probes_are_routes_and_commands_of_ours() -> None:
    routes = {getattr(route, "path", "") for route in create_app(Settings()).routes}
    ports = {port["name"]: str(port["containerPort"]) for port in API["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        asked = API[probe]["httpGet"]
        assert asked["path"] in routes
        assert ports[asked["port"]] == API["command"][API["command"].index("--port") + 1]
    assert API["livenessProbe"]["httpGet"]["path"] == "/healthz"
    for command in (WORKER["command"], API["command"], WORKER["readinessProbe"]["exec"]["command"]):
        helped = subprocess.run(  # noqa: ASYNC221 it is soon done
            [sys.executable, *command[1:], "--help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        assert all(option in helped.stdout for option in command if option.startswith("--"))


def test_everything_is_selected_by_its_labels() -> None:
    labels = [deployment["spec"]["template"]["metadata"]["labels"] for deployment in DEPLOYMENTS]
    assert labels[0] != labels[1]
    for deployment, own in zip(DEPLOYMENTS, labels, strict=True):
        spread = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0]
        assert deployment["spec"]["selector"]["matchLabels"] == spread["labelSelector"]["matchLabels"] == own
        assert deployment["spec"]["replicas"] > 1
    budgets = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "PodDisruptionBudget"]
    assert [budget["selector"]["matchLabels"] for budget in budgets] == labels
    [service] = [manifest["spec"] for manifest in MANIFESTS if manifest["kind"] == "Service"]
    assert service["selector"] == labels[1]
    assert service["ports"][0]["targetPort"] in {port["name"] for port in API["ports"]}


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_a_pod_may_do_nothing_but_its_work(deployment: dict[str, Any]) -> None:
    pod = deployment["spec"]["template"]["spec"]
    user = re.search(r"^USER (\d+)$", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    assert user is not None
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": int(user[1]),
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "a Service called redis would set REDIS_PORT"
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"].keys() == {"requests", "limits"}
