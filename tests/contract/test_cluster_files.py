"""Every shipped cluster file is valid by Ray's schema, has the versions of the lock file and requires the token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

FILES = [REPOSITORY / "cluster.yaml", *sorted((REPOSITORY / "configs/cluster").glob("*.yaml"))]
CLOUDS = [path for path in FILES if path.name != "onprem.yaml"]
MANIFESTS = sorted((REPOSITORY / "configs/cluster/kuberay").glob("*.yaml"))
RUNTIME = REPOSITORY / "configs/runtime_env.yaml"
LOCK = (REPOSITORY / "requirements.lock").read_text()
(RAY_VERSION,) = re.findall(r"^ray==([\d.]+)", LOCK, re.MULTILINE)


def path_in_repository(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def spec(path: Path) -> Any:
    """Return the specification of the RayCluster in a manifest."""
    document = yaml.safe_load(path.read_text())
    return document["spec"].get("rayClusterSpec", document["spec"])


@pytest.mark.parametrize("path", FILES, ids=path_in_repository)
def test_the_file_is_valid_by_rays_schema(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(yaml.safe_load(path.read_text())))


@pytest.mark.parametrize("path", FILES, ids=path_in_repository)
def test_the_head_runs_no_tasks(path: Path) -> None:
    cluster = yaml.safe_load(path.read_text())
    types = cluster.get("available_node_types")
    by_type = types and types[cluster["head_node_type"]]["resources"] == {"CPU": 0}
    assert by_type or "--num-cpus=0" in cluster["head_start_ray_commands"][-1]


@pytest.mark.parametrize("path", CLOUDS, ids=path_in_repository)
def test_workers_scale_from_zero_and_end_when_idle(path: Path) -> None:
    cluster = yaml.safe_load(path.read_text())
    workers = {name: kind for name, kind in cluster["available_node_types"].items() if name != "head"}
    assert all(kind["min_workers"] == 0 for kind in workers.values())
    assert sum(kind["max_workers"] for kind in workers.values()) == cluster["max_workers"]
    assert 1 <= cluster["idle_timeout_minutes"] <= 30
    spot = yaml.safe_dump(workers["cpu"]["node_config"])
    assert "spot" in spot or "preemptible: true" in spot


@pytest.mark.parametrize("path", CLOUDS, ids=path_in_repository)
def test_only_the_head_may_start_machines(path: Path) -> None:
    types = yaml.safe_load(path.read_text())["available_node_types"]
    accounts = {
        name: set(re.findall("genre-[a-z]+", yaml.safe_dump(kind["node_config"]))) for name, kind in types.items()
    }
    assert accounts == {"head": {"genre-head"}, "cpu": {"genre-worker"}, "gpu": {"genre-worker"}}


@pytest.mark.parametrize("path", CLOUDS, ids=path_in_repository)
def test_machines_with_a_gpu_have_a_driver_for_its_torch(path: Path) -> None:
    """The lock's torch needs a driver of 580 or later; an image of Ray's own choice has an older one."""
    assert re.search(r"^nvidia-cudnn-cu13==", LOCK, re.MULTILINE), "another major version of CUDA: see genre/devices.py"
    gpu = yaml.safe_dump(yaml.safe_load(path.read_text())["available_node_types"]["gpu"]["node_config"])
    assert "base-oss-nvidia-driver-gpu-ubuntu-22.04/latest" in gpu or "-nvidia-580" in gpu


@pytest.mark.parametrize("path", [*FILES, *MANIFESTS], ids=path_in_repository)
def test_access_requires_the_token(path: Path) -> None:
    text = path.read_text()
    assert "0.0.0.0" not in text
    if path in MANIFESTS:
        assert spec(path)["authOptions"] == {"mode": "token"}
        return
    cluster = yaml.safe_load(text)
    starts = [cluster["head_start_ray_commands"][-1], cluster["worker_start_ray_commands"][-1]]
    assert all("RAY_AUTH_MODE=token" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("path", [*FILES, *MANIFESTS, RUNTIME], ids=path_in_repository)
def test_the_file_contains_no_secret(path: Path) -> None:
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|[0-9a-f]{40,}", path.read_text())
    assert not re.search(
        r"(?i)(secret|password|access_key|auth_token)\s*[:=]\s*\S",
        path.read_text().replace("~/.ray/auth_token: ~/.ray/auth_token", ""),
    )


@pytest.mark.parametrize("path", [*CLOUDS, REPOSITORY / "configs/cluster/kuberay/Dockerfile"], ids=path_in_repository)
def test_images_have_the_versions_of_the_lock_file(path: Path) -> None:
    images = re.findall(r"rayproject/ray:(\S+?)[\s}]", path.read_text())
    assert images
    assert all(image.startswith(f"{RAY_VERSION}-py311-") for image in images)
    assert "--require-hashes -r" in path.read_text()


@pytest.mark.parametrize("path", MANIFESTS, ids=path_in_repository)
def test_the_manifest_has_the_version_and_no_idle_workers(path: Path) -> None:
    """KubeRay's schema is too large to ship; docs/CLUSTER.md describes how the manifests were checked against it."""
    cluster = spec(path)
    assert cluster["rayVersion"] == RAY_VERSION
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["minReplicas"] == 0 for group in cluster["workerGroupSpecs"])
    assert cluster["autoscalerOptions"]["version"] == "v2"  # reports what it cannot start
    head, *workers = [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    assert head["containers"][0]["resources"]["requests"] == {"cpu": "8", "memory": "32Gi"}
    assert {worker["serviceAccountName"] for worker in workers} == {"genre-worker"} != {head["serviceAccountName"]}


# Fields of KubeRay v1.5.1 to v1.7.0. Kubernetes drops a field that it does not know without an error.
_CLUSTER = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
    "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy", "workerGroupSpecs",
}  # fmt: skip
_AUTOSCALER = {
    "env", "envFrom", "idleTimeoutSeconds", "image", "imagePullPolicy", "resources", "securityContext", "upscalingMode",
    "version", "volumeMounts",
}  # fmt: skip
_HEAD = {"enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template"}
_WORKERS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams",
    "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


@pytest.mark.parametrize("path", MANIFESTS, ids=path_in_repository)
def test_the_manifest_has_only_fields_that_kuberay_knows(path: Path) -> None:
    cluster = spec(path)
    assert cluster.keys() <= _CLUSTER
    assert cluster["autoscalerOptions"].keys() <= _AUTOSCALER
    assert cluster["autoscalerOptions"]["version"] in ("v1", "v2")
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"].keys() <= _HEAD
    assert all(group.keys() <= _WORKERS for group in cluster["workerGroupSpecs"])


def test_the_runtime_environment_is_valid() -> None:
    from ray.runtime_env import RuntimeEnv

    RuntimeEnv(**yaml.safe_load(RUNTIME.read_text()))
