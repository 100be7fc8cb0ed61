"""deploy/ray: the structure of the RayJob, and its agreement with the command, the image and the lock file.

No schema of KubeRay is part of a package here, so its own fields are compared with the few that are used.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from voicestyle.cli import main

ROOT = Path(__file__).parents[2]
FIELDS = {
    "job": {
        "backoffLimit",
        "entrypoint",
        "rayClusterSpec",
        "shutdownAfterJobFinishes",
        "submissionMode",
        "ttlSecondsAfterFinished",
    },
    "cluster": {"authOptions", "headGroupSpec", "rayVersion", "workerGroupSpecs"},
    "head": {"rayStartParams", "template"},
    "worker": {"groupName", "maxReplicas", "minReplicas", "rayStartParams", "replicas", "template"},
}


@pytest.fixture(scope="module")
def job():
    return yaml.safe_load((ROOT / "deploy" / "ray" / "rayjob.yaml").read_text())


@pytest.fixture(scope="module")
def cluster(job):
    return job["spec"]["rayClusterSpec"]


@pytest.fixture(scope="module")
def head(cluster):
    return cluster["headGroupSpec"]


@pytest.fixture(scope="module")
def worker(cluster):
    (group,) = cluster["workerGroupSpecs"]
    return group


@pytest.fixture(scope="module")
def pods(head, worker):
    return [group["template"]["spec"] for group in (head, worker)]


def test_the_fields_are_those_of_a_ray_job(job, cluster, head, worker):
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    found = {"job": job["spec"], "cluster": cluster, "head": head, "worker": worker}
    assert {name: set(part) for name, part in found.items()} == FIELDS
    assert all(isinstance(value, str) for group in (head, worker) for value in group["rayStartParams"].values())
    assert 1 <= worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_the_pods_are_valid_by_the_schema_of_kubernetes(request, kind):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    template = request.getfixturevalue(kind)["template"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": kind, **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, "1.29", strict=True)


def test_the_entrypoint_is_a_command_of_this_package(job):
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program.endswith("/.venv/bin/voicestyle")
    assert words[:2] == ["bank", "build"]
    parameters = main.commands["bank"].commands["build"].make_context("build", words[2:]).params
    assert (parameters["ray"], parameters["device"]) == ("auto", "cuda")
    # Nothing is downloaded in the cluster.
    assert all(parameters[name] for name in ("stylegan", "vgg", "lpips", "identity"))
    paths = [*parameters["photographs"], *(parameters[name] for name in ("output", "stylegan", "vgg", "identity"))]
    assert {path.parts[1] for path in paths} == {"data"}


def test_only_the_head_mounts_the_data(pods):
    mounts = [[mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]] for pod in pods]
    assert mounts == [["/tmp", "/dev/shm", "/data"], ["/tmp", "/dev/shm"]]
    for pod in pods:
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert volumes == {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}


def test_shards_run_on_the_workers_gpus_alone(head, pods):
    assert head["rayStartParams"] == {"num-cpus": "0", "num-gpus": "0"}
    limits = [pod["containers"][0]["resources"]["limits"] for pod in pods]
    assert [limit.get("nvidia.com/gpu") for limit in limits] == [None, 1]


def test_nodes_have_one_image_few_privileges_and_send_no_statistics(pods, cluster):
    assert {pod["containers"][0]["image"] for pod in pods} == {"voicestyle:bank"}
    user = re.search(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text())
    for pod in pods:
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert [str(pod["securityContext"][name]) for name in ("runAsUser", "runAsGroup")] == list(user.groups())
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["PATH"].startswith("/opt/voicestyle/.venv/bin:")
    assert cluster["authOptions"] == {"mode": "token"}


def test_the_version_of_ray_is_the_locked_one(cluster):
    locked = re.search(r"(?m)^ray==(\S+)", (ROOT / "requirements.lock").read_text())[1]
    assert cluster["rayVersion"] == locked
