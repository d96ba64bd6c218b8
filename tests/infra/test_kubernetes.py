"""`infra/helm/` without a cluster: what the pods may do, and that Kubernetes and Airflow can read the files.

Promises: no volume is shared; no pod runs as root, writes to its image or may ask the cluster for anything; connections
are those that are listed. Schemas of Kubernetes, Airflow's own reader of pod templates and the chart are asked where
they are installed. What a task pod does is run in `tests/flow/test_task_pods.py`.
"""

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

HELM = Path(__file__).parents[2] / "infra" / "helm"
VALUES = yaml.safe_load((HELM / "airflow-values.yaml").read_text())
POD: dict[str, Any] = yaml.safe_load((HELM / "task-pod.yaml").read_text())
BESIDE: list[dict[str, Any]] = yaml.safe_load((HELM / "headrace.yaml").read_text())["items"]
SPECS: dict[str, dict[str, Any]] = {
    "task": POD["spec"],
    **{item["metadata"]["name"]: item["spec"]["template"]["spec"] for item in BESIDE if item["kind"] == "Deployment"},
}
CHART = os.environ.get("AIRFLOW_CHART")
"""The folder of Airflow's chart, 1.22, if it is here."""

LABELS = {
    "headrace-task": POD["metadata"]["labels"],
    **{
        item["metadata"]["name"]: item["spec"]["template"]["metadata"]["labels"]
        for item in BESIDE
        if item["kind"] == "Deployment"
    },
}
POLICIES = {item["metadata"]["name"]: item["spec"] for item in BESIDE if item["kind"] == "NetworkPolicy"}
DOCUMENTATION = [ipaddress.IPv4Network(cidr) for cidr in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
"""Addresses that no server has (RFC 5737)."""

CONSTRUCT = """
import json, sys
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from kubernetes.client import ApiClient
pod = PodGenerator.construct_pod(
    dag_id="flights_refresh", task_id="tables.ingest", pod_id="flights-refresh-tables-ingest", try_number=1,
    kube_image="images.example/other:1", date=None, args=["python", "-m", "airflow.sdk.execution_time"],
    pod_override_object=None, base_worker_pod=PodGenerator.deserialize_model_file(sys.argv[1]), namespace="airflow",
    scheduler_job_id="7", run_id="scheduled__2013-01-03T06:00:00+00:00",
)
print(json.dumps(ApiClient().sanitize_for_serialization(pod)))
"""


def containers(spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (*spec.get("initContainers", ()), *spec["containers"])


@pytest.mark.parametrize("name", SPECS)
def test_a_pod_is_an_ordinary_user_on_a_read_only_image_without_a_token(name: str) -> None:
    spec = SPECS[name]
    user = spec["securityContext"]

    assert (user["runAsUser"], user["runAsNonRoot"]) == (50000, True)
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["serviceAccountName"] == "headrace-task"
    for container in containers(spec):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
        assert "memory" in container["resources"]["limits"]


def test_the_account_of_the_pods_has_no_rights() -> None:
    (account,) = [item for item in BESIDE if item["kind"] == "ServiceAccount"]

    assert account["automountServiceAccountToken"] is False
    assert not [item for item in BESIDE if "Role" in item["kind"]]


@pytest.mark.parametrize("name", SPECS)
def test_no_volume_is_shared_and_every_disk_has_a_limit(name: str) -> None:
    for volume in SPECS[name]["volumes"]:
        (kind,) = volume.keys() - {"name"}
        assert kind in {"emptyDir", "secret", "configMap"}
        assert kind != "emptyDir" or volume["emptyDir"]["sizeLimit"]
    assert not [item for item in BESIDE if item["kind"] in {"PersistentVolume", "PersistentVolumeClaim"}]


@pytest.mark.parametrize("name", SPECS)
def test_every_volume_is_mounted_and_every_mount_is_a_volume(name: str) -> None:
    spec = SPECS[name]

    mounted = {mount["name"] for container in containers(spec) for mount in container["volumeMounts"]}

    assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_deploy_key_is_checked_against_known_hosts_and_reaches_git_only() -> None:
    key = {"name": "git-key", "secret": {"secretName": "headrace-git", "defaultMode": 0o440}}
    ssh = {
        item["value"]
        for container in (*containers(POD["spec"]), VALUES["dagProcessor"])
        for item in container["env"]
        if item["name"] == "GIT_SSH_COMMAND"
    }

    assert key in POD["spec"]["volumes"]
    assert key in VALUES["dagProcessor"]["extraVolumes"]
    assert len(ssh) == 1
    files = ("-i /etc/git/ssh-privatekey", "UserKnownHostsFile=/etc/git/known_hosts")
    for option in (*files, "IdentitiesOnly=yes", "StrictHostKeyChecking=yes"):
        assert option in next(iter(ssh))
    assert "headrace-git" not in json.dumps([SPECS["dask-scheduler"], SPECS["dask-worker"]])


def test_a_task_has_no_secret_of_airflow() -> None:
    named = set(re.findall(r'"(?:secretName|name)": "(headrace-[a-z-]+)"', json.dumps(POD)))

    assert named == {"headrace-task", "headrace-environment", "headrace-git", "headrace-dask-tls"}


@pytest.mark.parametrize("name", LABELS)
def test_every_pod_has_a_policy_for_both_directions(name: str) -> None:
    policy = POLICIES[name]

    assert policy["podSelector"]["matchLabels"].items() <= LABELS[name].items()
    assert policy["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_names_addresses_pods_and_ports_and_never_everything(name: str) -> None:
    policy = POLICIES[name]
    for rule in (*policy["ingress"], *policy["egress"]):
        assert rule["ports"]
        assert all(port["port"] for port in rule["ports"])
        (peer,) = rule.get("to") or rule["from"]
        assert peer.get("podSelector") or any(
            ipaddress.IPv4Network(peer["ipBlock"]["cidr"]).subnet_of(network) for network in DOCUMENTATION
        )


def test_dask_is_reached_on_the_ports_that_it_listens_on_and_by_its_own_pods_alone() -> None:
    scheduler, worker = (SPECS[f"dask-{name}"]["containers"][0]["command"] for name in ("scheduler", "worker"))

    assert scheduler[scheduler.index("--port") + 1] == "8786"
    assert worker[worker.index("--worker-port") + 1] == "8788"
    assert ports_in(POLICIES["dask-scheduler"]) == {8786}
    assert ports_in(POLICIES["dask-worker"]) == {8788}
    assert not POLICIES["headrace-task"]["ingress"]
    assert {8786, 8080, 22, 443, 5432, 6379, 53} == {
        port["port"] for rule in POLICIES["headrace-task"]["egress"] for port in rule["ports"]
    }


def ports_in(policy: dict[str, Any]) -> set[int]:
    return {port["port"] for rule in policy["ingress"] for port in rule["ports"]}


def test_tasks_write_to_the_remote_and_the_chart_starts_them_from_the_template() -> None:
    environment = {item["name"]: item["value"] for item in POD["spec"]["containers"][0]["env"]}

    assert VALUES["executor"] == "KubernetesExecutor"
    assert environment["HEADRACE_COMMIT"] == "remote"
    assert environment["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert POD["spec"]["containers"][0]["name"] == "base"
    assert VALUES["config"]["logging"]["remote_logging"] == "True"


@pytest.mark.parametrize("name", ["task-pod", "headrace"])
def test_the_schemas_of_kubernetes_accept_every_object(name: str) -> None:
    if not find_spec("kubernetes_validate"):
        pytest.skip("kubernetes-validate is not installed here")
    kubernetes_validate = import_module("kubernetes_validate")

    for item in [POD] if name == "task-pod" else BESIDE:
        kubernetes_validate.validate(item, "1.33", strict=True)


def test_airflow_makes_a_task_pod_of_the_template() -> None:
    if not find_spec("kubernetes"):
        pytest.skip("apache-airflow-providers-cncf-kubernetes is not installed here")
    done = subprocess.run(
        [sys.executable, "-c", CONSTRUCT, HELM / "task-pod.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    pod = json.loads(done.stdout.splitlines()[-1])

    (base,) = pod["spec"]["containers"]
    assert base["args"][:2] == ["python", "-m"]
    assert base["securityContext"]["readOnlyRootFilesystem"] is True
    assert {item["name"] for item in base["env"]} >= {"HEADRACE_COMMIT", "GIT_SSH_COMMAND"}
    assert pod["metadata"]["labels"]["app"] == "headrace-task"
    assert [container["name"] for container in pod["spec"]["initContainers"]] == ["open-workspace"]
    assert pod["spec"]["automountServiceAccountToken"] is False


def test_the_chart_accepts_the_values() -> None:
    helm = shutil.which("helm")
    if not (helm and CHART):
        pytest.skip("helm is not installed here, or AIRFLOW_CHART names no folder of the chart")
    files = (f"--values={HELM / 'airflow-values.yaml'}", f"--set-file=podTemplate={HELM / 'task-pod.yaml'}")
    done = subprocess.run(
        [helm, "template", "airflow", CHART, "--namespace", "airflow", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    objects = [item for item in yaml.safe_load_all(done.stdout) if item]

    (config,) = [item["data"] for item in objects if item["kind"] == "ConfigMap" and "airflow.cfg" in item["data"]]
    assert yaml.safe_load(config["pod_template_file.yaml"]) == POD
    assert "executor = KubernetesExecutor" in config["airflow.cfg"]
    assert "GitDagBundle" in config["airflow.cfg"]
    assert not [item for item in objects if item["kind"] == "PersistentVolumeClaim"]
    (name,) = {item["metadata"]["name"] for item in objects if "airflow.cfg" in item.get("data", {})}
    assert {"name": "config", "configMap": {"name": name}} in POD["spec"]["volumes"]
