"""The Kubernetes manifests: valid by Kubernetes' own schema, closed by default, and able to roll without a loss."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

VERSION = "1.34"


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    found = [manifest for manifest in manifests if manifest["kind"] == kind]
    assert found, kind
    return found


def pods(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [it["spec"]["template"]["spec"] for it in manifests if it["kind"] in ("Deployment", "StatefulSet")]


def test_every_manifest_follows_kubernetes_schema(manifests: list[dict[str, Any]]) -> None:
    assert len(manifests) >= 10
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_validator_refuses_a_misspelt_field(manifests: list[dict[str, Any]]) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spec": deployment["spec"] | {"replica": 2}}, VERSION, strict=True)


def test_every_container_is_locked_down(manifests: list[dict[str, Any]]) -> None:
    for pod in pods(manifests):
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"], container["name"]
            assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert context["allowPrivilegeEscalation"] is False, container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]


def test_the_engine_listens_only_to_its_own_pod(manifests: list[dict[str, Any]]) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    (engine,) = (it for it in deployment["spec"]["template"]["spec"]["containers"] if it["name"] == "engine")
    assert "--host=127.0.0.1" in engine["args"]
    assert "ports" not in engine


def test_nobody_may_speak_to_anybody_but_by_a_rule(manifests: list[dict[str, Any]]) -> None:
    policies = {it["metadata"]["name"]: it["spec"] for it in of_kind(manifests, "NetworkPolicy")}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    opened = [port["port"] for rule in policies["replica"]["ingress"] for port in rule["ports"]]
    assert opened == [8000]
    assert policies["database"]["ingress"][0]["from"] == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "replica"}}}
    ]


def test_a_pod_has_longer_to_stop_than_the_service_may_drain(manifests: list[dict[str, Any]]) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    (configuration,) = of_kind(manifests, "ConfigMap")
    grace_s = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > float(configuration["data"]["METABOLISM_DRAIN_S"]) + 10
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_a_probe_waits_as_long_as_the_service_waits_for_its_engine(manifests: list[dict[str, Any]]) -> None:
    (deployment,) = of_kind(manifests, "Deployment")
    (configuration,) = of_kind(manifests, "ConfigMap")
    (service,) = (it for it in deployment["spec"]["template"]["spec"]["containers"] if it["name"] == "service")
    startup = service["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > float(
        configuration["data"]["METABOLISM_ENGINE_WAIT_S"]
    )


def test_every_file_is_in_the_kustomization() -> None:
    folder = Path(__file__).resolve().parents[2] / "docker" / "kubernetes"
    listed = (folder / "kustomization.yaml").read_text()
    assert all(file.name in listed for file in folder.glob("*.yaml") if file.name != "kustomization.yaml")
