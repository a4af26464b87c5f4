"""The manifests in deploy/ are what their tools take, and their commands are ones that exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adbc_telemetry.cli import _parser

yaml = pytest.importorskip("yaml")
kubernetes_validate = pytest.importorskip("kubernetes_validate")

DEPLOY = Path(__file__).parents[3] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def resources() -> list[dict[str, Any]]:
    return [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text())]


def containers() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for resource in resources():
        pod = resource.get("spec", {}).get("template", {}).get("spec", {})
        for container in pod.get("containers", ()):
            yield pod, container


def commands() -> list[list[str]]:
    ours = [container["args"] for _, container in containers()]
    return ours + [
        service["command"] for service in COMPOSE["services"].values() if service.get("build") == "."
    ]


@pytest.mark.parametrize(
    "resource", resources(), ids=lambda each: f"{each['kind']}/{each['metadata']['name']}"
)
def test_each_manifest_is_valid_by_the_schemas_of_kubernetes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, "1.31", strict=True)


def test_the_schemas_find_a_mistake() -> None:
    broken = resources()[0]
    broken["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, "1.31", strict=True)


@pytest.mark.parametrize("command", commands(), ids=lambda command: command[0])
def test_each_command_is_one_that_there_is(command: list[str]) -> None:
    assert _parser().parse_args(command).command == command[0]


def test_selectors_ports_and_volumes_name_what_there_is() -> None:
    labels = [
        each["spec"]["template"]["metadata"]["labels"]
        for each in resources()
        if "template" in each.get("spec", {})
    ]
    names = {(each["kind"], each["metadata"]["name"]) for each in resources()}
    for resource in resources():
        if resource["kind"] == "Service":
            assert resource["spec"]["selector"] in labels
        if "scaleTargetRef" in resource.get("spec", {}):
            target = resource["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in names
    for pod, container in containers():
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        if "serviceAccountName" in pod:
            assert ("ServiceAccount", pod["serviceAccountName"]) in names


def test_the_pods_run_with_the_least_rights() -> None:
    for pod, container in containers():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= container["resources"].keys()


def test_the_compose_file_names_what_it_defines() -> None:
    known = {"name", "services", "secrets", "configs", "volumes"}
    assert COMPOSE.keys() == known
    for service in COMPOSE["services"].values():
        assert ("image" in service) != ("build" in service)
        assert set(service.get("depends_on", ())) <= COMPOSE["services"].keys()
        assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
        assert {each["source"] for each in service.get("configs", ())} <= COMPOSE["configs"].keys()
        for volume in service.get("volumes", ()):
            assert volume.partition(":")[0] in COMPOSE["volumes"]
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), "a fleet to try is for this machine alone"
