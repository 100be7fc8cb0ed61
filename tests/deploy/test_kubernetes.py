"""deploy/: valid by Kubernetes' schemas, and consistent with the service, the image and nginx."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from tests.support.kustomize import DEPLOY, component_names, with_components
from voicestyle.archive import MODEL_CONFIG
from voicestyle.cli import main
from voicestyle.serving.server import START_SECONDS, STOP_SECONDS

FILES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
KUBECTL = shutil.which("kubectl")
VARIANTS = [
    *((name,) for name in component_names()),
    ("runtime-class", "eks", "several-gpus"),
    ("aks", "mig"),
]
VERSIONS = ("1.29", "1.37")  # the first version with sidecars, and a recent one


def read(name):
    return yaml.safe_load((DEPLOY / name).read_text())


@pytest.fixture(scope="module")
def pod():
    return read("kubernetes/deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def service_container(pod):
    (container,) = pod["containers"]
    return container


@pytest.fixture(scope="module")
def parameters(service_container):
    return main.commands["serve"].make_context("serve", list(service_container["args"])).params


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_files_are_valid_by_the_schemas(path, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_find_a_misspelt_field():
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    misspelt = read("kubernetes/deployment.yaml")
    misspelt["spec"]["template"]["spec"]["terminationGracePeriod"] = 180
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(misspelt, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("names", VARIANTS, ids="+".join)
def test_the_deployment_with_components_is_valid_by_the_schemas(names, version):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    deployment = with_components(*names)
    kubernetes_validate.validate(deployment, version, strict=True)
    assert deployment != with_components()


@pytest.mark.skipif(KUBECTL is None, reason="needs kubectl")
@pytest.mark.parametrize("names", [(), *VARIANTS], ids="+".join)
def test_kubectl_renders_the_same_deployment(tmp_path, names):
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    with (tmp_path / "deploy" / "kustomization.yaml").open("a") as file:
        yaml.safe_dump({"components": [f"components/{name}" for name in names]}, file)
    command = [KUBECTL, "kustomize", tmp_path / "deploy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rendered = {document["kind"]: document for document in yaml.safe_load_all(done.stdout)}
    expected = with_components(*names)
    volumes = expected["spec"]["template"]["spec"]["volumes"]
    configuration = next(volume["configMap"] for volume in volumes if "configMap" in volume)
    configuration["name"] = rendered["ConfigMap"]["metadata"]["name"]  # with the hash of the content
    assert rendered["Deployment"] == expected


def test_the_kustomization_lists_every_component():
    listed = re.findall(r"(?m)^# +- components/(\S+)$", (DEPLOY / "kustomization.yaml").read_text())
    assert sorted(listed) == component_names()


@pytest.mark.parametrize("names", [(), *VARIANTS], ids="+".join)
def test_each_pod_gets_one_kind_of_gpu_and_tolerates_its_taint(names):
    pod = with_components(*names)["spec"]["template"]["spec"]
    limits = pod["containers"][0]["resources"]["limits"]
    (gpu,) = [name for name in limits if name.startswith("nvidia.com/")]
    assert limits[gpu] == (4 if "several-gpus" in names else 1)
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]


def test_several_gpus_get_as_many_cpus_and_as_much_memory_each_as_one():
    one, several = (
        with_components(*names)["spec"]["template"]["spec"]["containers"][0]["resources"]
        for names in ((), ("several-gpus",))
    )
    number = several["limits"]["nvidia.com/gpu"]
    assert int(several["requests"]["cpu"]) == number * int(one["requests"]["cpu"])
    for kind in ("requests", "limits"):
        memory = [int(resources[kind]["memory"].removesuffix("Gi")) for resources in (one, several)]
        assert memory[1] == number * memory[0]


def test_the_archive_starts_one_worker_as_the_deployment_has_one_gpu():
    config = yaml.safe_load(MODEL_CONFIG.read_text())
    limits = with_components()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert config["minWorkers"] == config["maxWorkers"] == limits["nvidia.com/gpu"]


def test_the_kustomization_names_existing_files():
    kustomization = read("kustomization.yaml")
    assert sorted(DEPLOY / name for name in kustomization["resources"]) == FILES
    (generated,) = kustomization["configMapGenerator"]
    assert all((DEPLOY / name).is_file() for name in generated["files"])


def test_the_pod_has_minimal_privileges(pod, service_container):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in (service_container, *pod["initContainers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
        assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]]
        assert not re.search(r":latest$|^[^:]+$", container["image"])
    assert service_container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_user_is_that_of_the_image(pod):
    user = re.search(r"(?m)^USER (\d+):(\d+)$", (DEPLOY.parent / "Dockerfile").read_text())
    assert [int(number) for number in user.groups()] == [
        pod["securityContext"]["runAsUser"],
        pod["securityContext"]["runAsGroup"],
    ]


def test_probes_ask_the_operations_port(service_container, parameters):
    assert parameters["operations_host"] == "0.0.0.0"  # the kubelet probes the pod's address
    (port,) = service_container["ports"]
    assert (port["name"], port["containerPort"]) == ("operations", parameters["operations"])
    probes = {name: service_container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startup": "/ready",
        "readiness": "/ready",
        "liveness": "/live",
    }
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {"operations"}
    assert probes["startup"]["periodSeconds"] * probes["startup"]["failureThreshold"] > START_SECONDS


def test_the_termination_grace_period_covers_the_drain(pod, parameters):
    drain = parameters["drain_grace"] + parameters["drain_seconds"] + STOP_SECONDS
    assert pod["terminationGracePeriodSeconds"] > drain
    assert parameters["drain_grace"] > 0  # proxies need time to notice before requests are rejected


def test_only_nginx_is_exposed_and_it_stops_last(pod, parameters):
    (nginx,) = pod["initContainers"]
    assert nginx["restartPolicy"] == "Always"  # a sidecar: stopped after the main container
    assert parameters["host"] == "127.0.0.1"
    ports = {port["name"]: port["containerPort"] for port in nginx["ports"]}
    listening = re.findall(r"listen (\d+)", (DEPLOY / "nginx" / "nginx.conf").read_text())
    assert sorted(map(str, ports.values())) == sorted(listening)
    service = read("kubernetes/service.yaml")["spec"]
    assert {port["targetPort"] for port in service["ports"]} == set(ports)
    labels = read("kubernetes/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


def test_nginx_keeps_bodies_in_memory(pod):
    (nginx,) = pod["initContainers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in nginx["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    configuration = next(name for name in mounts if "configMap" in volumes[name])
    assert f"{mounts[configuration]}/nginx.conf" in nginx["command"]
    generated = read("kustomization.yaml")["configMapGenerator"][0]
    assert volumes[configuration]["configMap"]["name"] == generated["name"]
    bodies = next(name for name, path in mounts.items() if path == "/tmp")
    assert volumes[bodies]["emptyDir"]["medium"] == "Memory"
    assert json.dumps(pod).count('"medium": "Memory"') == 1
