"""`infra/` as text: the stack as containers, checked as far as one can without a container engine.

Promises: compose, images, chart values and Terraform parse, agree with the pipeline's settings, with each other and
with the tools whose options they set; no page leaves 127.0.0.1; no secret has a default. What the scripts do is in
`test_infra_scripts.py`.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  with its options
import pytest
import yaml
from dotenv import dotenv_values
from packaging.specifiers import SpecifierSet
from pydantic import AliasChoices

import headrace
from headrace.settings import Settings
from headrace.stack.servers import postgres

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: Mapping[str, Any] = COMPOSE["services"]
CELERY = sorted((INFRA / "celery").glob("*.env"))
DOCKERFILES = sorted((INFRA / "images").glob("*.Dockerfile"))
SCRIPTS = sorted([*INFRA.rglob("*.sh"), *INFRA.rglob("*.sbatch")])

OF_A_TOOL = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|DEFAULT_REGION|ENDPOINT_URL)"
    r"|AWS_(REQUEST_CHECKSUM_CALCULATION|RESPONSE_CHECKSUM_VALIDATION)"
    r"|AIRFLOW_HOME|DVC_NO_ANALYTICS|FEAST_USAGE|GIT_SSH_COMMAND|GIT_TERMINAL_PROMPT|GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)"
    r"|POSTGRES_(USER|PASSWORD)|RCLONE_AUTH_KEY"
    r"|DJANGO_DB|POSTGRE_(HOST|NAME|PASSWORD|PORT|USER)"
    r"|LABEL_STUDIO_(ENABLE_LEGACY_API_TOKEN|HOST|PASSWORD|USERNAME|USER_TOKEN)"
    r"|fflag_feat_utc_210_prediction_validation_15082025"
)
"""Settings that the tools themselves document."""

OPTIONAL = {"AWS_ENDPOINT_URL_S3"} | {
    f"HEADRACE_{name}"
    for name in (
        "CODE_BRANCH", "COMMIT", "ENGINE", "LOG_FORMAT", "LOG_LEVEL", "PUSH_RUNS", "RELEASE_BRANCH", "RUN_DAYS",
        "RUN_REFS", "THREADS",
    )
}  # fmt: skip
"""Settings of the pipeline whose default is right in a container."""


NOT_AN_OPTION = "not an option"


def settings_of_the_pipeline() -> Iterator[str]:
    for field in Settings.model_fields.values():
        alias = field.validation_alias
        yield from (str(one) for one in alias.choices) if isinstance(alias, AliasChoices) else (str(alias),)


@cache
def airflow_options() -> set[tuple[str, str]]:
    """Every option that this version of Airflow documents, read from its file: importing Airflow takes seconds."""
    found = find_spec("airflow")
    assert found
    assert found.origin
    package = Path(found.origin).parent
    text = (package / "config_templates" / "config.yml").read_text()
    options = {(section, name) for section, body in yaml.safe_load(text).items() for name in body["options"]}
    celery = (package / "providers/celery/get_provider_info.py").read_text()
    return options | {("celery", name) for name in re.findall(r'"(\w+)": \{\s*"description"', celery)}


def command(name: str) -> str:
    """A checker on the PATH or in this environment; the test is skipped, and says so, where there is none."""
    there = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    return there or pytest.skip(f"{name} is not installed here")


def check(*words: str | Path) -> None:
    done = subprocess.run(list(words), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def passed_settings() -> set[tuple[str, str]]:
    return {(name, key) for name, service in SERVICES.items() for key in service.get("environment", {})} | {
        (f"celery {path.stem}", key) for path in CELERY for key in dotenv_values(path)
    }


def services_with(profile: str) -> set[str]:
    return {name for name, service in SERVICES.items() if profile in service["profiles"]}


@pytest.mark.parametrize("path", sorted(INFRA.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_yaml_file_parses(path: Path) -> None:
    assert list(yaml.safe_load_all(path.read_text()))


def test_the_profile_core_holds_every_server_of_the_local_stack() -> None:
    assert services_with("core") == {
        "storage", "postgres", "workspace", "airflow-init", "airflow-api-server", "airflow-scheduler",
        "airflow-dag-processor", "airflow-triggerer", "dask-certificate", "dask-scheduler",
        "dask-worker",
    }  # fmt: skip
    assert SERVICES["dask-worker"]["deploy"]["replicas"] == 2


def test_the_profile_labeling_holds_label_studio_and_its_database() -> None:
    assert services_with("labeling") == {"label-studio", "postgres"}


def test_the_profile_gpu_reserves_a_gpu_for_a_worker_of_the_rapids_image() -> None:
    worker = SERVICES["dask-gpu-worker"]

    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]

    assert services_with("gpu") == {"dask-gpu-worker"}
    assert worker["build"]["target"] == "rapids"
    assert device["capabilities"] == ["gpu"]
    assert worker["environment"]["HEADRACE_ENGINE"] == "gpu"


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_only_after_services_of_its_own_profile_or_of_core(name: str) -> None:
    service = SERVICES[name]

    for needed in service.get("depends_on", {}):
        assert {*service["profiles"], "core"} & set(SERVICES[needed]["profiles"]), needed


@pytest.mark.parametrize("name", SERVICES)
def test_a_port_is_published_on_127_0_0_1_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+_PORT:-\d+\}:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_that_stays_has_a_health_check_and_one_that_ends_is_not_restarted(name: str) -> None:
    service = SERVICES[name]

    if service["restart"] == "no":
        assert "healthcheck" not in service
    else:
        assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_gains_no_rights(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["scheduler", "dag-processor", "triggerer"])
def test_airflow_processes_wait_for_a_healthy_api_server(name: str) -> None:
    needed = SERVICES[f"airflow-{name}"]["depends_on"]

    assert needed["airflow-api-server"] == {"condition": "service_healthy"}


def test_a_secret_has_no_default_and_its_absence_is_said_with_its_name_and_its_file() -> None:
    text = (INFRA / "compose.yaml").read_text()

    for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text):
        secret = re.search(r"PASSWORD|SECRET|KEY|USERNAME", name)
        assert rest == f":?set {name} in infra/.env" if secret else rest.startswith(":-"), name


def write_secrets(file: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([INFRA / "secrets.sh", file], capture_output=True, text=True, check=False)


def test_secrets_sh_writes_a_file_for_its_owner_alone_and_never_overwrites_one(tmp_path: Path) -> None:
    file = tmp_path / ".env"

    first = write_secrets(file)
    content = file.read_text()
    second = write_secrets(file)
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "elsewhere")
    third = write_secrets(dangling)

    assert first.returncode == 0
    assert first.stdout == "", "no secret on the terminal"
    assert file.stat().st_mode & 0o777 == 0o600
    assert (second.returncode, third.returncode) == (1, 1)
    assert "exists, and stays as it is" in second.stderr
    assert file.read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", "link"], "no draft is left"


def test_secrets_sh_has_a_fresh_value_for_every_setting_that_compose_asks_for(tmp_path: Path) -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (INFRA / "compose.yaml").read_text()))

    one, other = (
        dict(line.split("=", 1) for line in (tmp_path / name).read_text().splitlines())
        for name in ("one", "other")
        if write_secrets(tmp_path / name).returncode == 0
    )

    assert one.keys() == asked
    assert {name for name in asked if one[name] == other[name]} == {"LABEL_STUDIO_USERNAME"}
    assert len(one["AIRFLOW_JWT_SECRET"]) >= 64
    assert re.fullmatch(r"[\w-]{43}=", one["AIRFLOW_FERNET_KEY"])
    assert re.fullmatch(r"[0-9a-f]{40}", one["LABEL_STUDIO_API_KEY"])
    assert one["POSTGRES_PASSWORD"].isalnum(), "it stands in addresses as it is"


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    docker = command("docker")
    if subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("this docker has no compose")
    env = tmp_path / "env"
    write_secrets(env)

    check(docker, "compose", "--env-file", env, "--file", INFRA / "compose.yaml", "--profile", "*", "config", "--quiet")


@pytest.mark.parametrize("name", ["airflow-scheduler", "dask-worker"])
def test_every_setting_of_the_pipeline_reaches_the_tasks_and_the_dask_workers(name: str) -> None:
    assert set(settings_of_the_pipeline()) - OPTIONAL <= SERVICES[name]["environment"].keys()


@pytest.mark.parametrize(("service", "name"), sorted(passed_settings()))
def test_a_setting_is_known_to_who_reads_it(service: str, name: str) -> None:
    del service
    section, _, option = name.removeprefix("AIRFLOW__").lower().partition("__")
    if name.startswith("AIRFLOW__"):
        assert (section, option) in airflow_options()
        return

    if name.startswith("DASK_DISTRIBUTED__"):
        assert dask.config.get(name.removeprefix("DASK_").lower().replace("__", "."), NOT_AN_OPTION) != NOT_AN_OPTION
        return

    readers = [ROOT / "feature_repo" / "feature_store.yaml", ROOT / ".env.example", *(INFRA / "images").glob("*.sh")]
    ours = "\n".join(path.read_text() for path in readers if path.exists())

    assert name in settings_of_the_pipeline() or OF_A_TOOL.fullmatch(name) or re.search(rf"\b{name}\b", ours)


def test_the_files_for_celery_can_be_sourced_and_hold_no_secret() -> None:
    for path in CELERY:
        printed = subprocess.check_output(["env", "-i", "sh", "-ac", '. "$1" && env -0', "sh", path], text=True)
        sourced = dict(line.split("=", 1) for line in printed.split("\0") if line)

        values = dotenv_values(path)
        assert {name: sourced.get(name) for name in values} == values
        assert {name for name in values if re.search("SECRET|_KEY$", name) and values[name]} == set()


def test_a_worker_of_celery_gets_no_access_to_airflows_database() -> None:
    common, control, worker = (dotenv_values(INFRA / f"celery/{name}.env") for name in ("airflow", "control", "worker"))

    assert {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "AIRFLOW__API_AUTH__JWT_SECRET"} <= control.keys()
    assert not control.keys() & (common.keys() | worker.keys())


def test_the_databases_are_those_of_the_local_stack_and_label_studios() -> None:
    script = (INFRA / "images" / "create-databases.sh").read_text()
    used = set(re.findall(r"@postgres:5432/(\w+)", (INFRA / "compose.yaml").read_text()))

    listed = re.search(r"for database in ([\w ]+);", script)

    assert listed
    assert set(listed[1].split()) == {*postgres.DATABASES, "labelstudio"}
    assert used <= {*postgres.DATABASES, "labelstudio"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_built_from_a_target_that_its_image_file_has(name: str) -> None:
    build = SERVICES[name]["build"]

    text = (INFRA / build["context"] / build["dockerfile"]).read_text()

    assert "target" not in build or re.search(rf"^FROM \S+ AS {build['target']}$", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    check(command("hadolint"), path)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_takes_only_files_that_exist_and_that_its_context_lets_through(path: Path) -> None:
    text = path.read_text()
    copied = [name for names in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in names.split()]
    taken = {*copied, *re.findall(r"type=bind,source=([^,]+)", text)}

    ignored, *rest = path.with_name(f"{path.name}.dockerignore").read_text().split()

    assert ignored == "*"
    assert {name.removeprefix("!") for name in rest if name != "**/__pycache__"} == taken
    assert all((ROOT / name).exists() for name in taken)
    assert "**/__pycache__" in rest or all((ROOT / name).is_file() for name in taken)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_starts_from_a_pinned_release_and_ends_as_an_ordinary_user(path: Path) -> None:
    text = path.read_text()
    stages = set(re.findall(r"^FROM \S+ AS (\w+)$", text, re.MULTILINE))

    bases = [base for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE) if base not in stages]
    users = re.findall(r"^USER (\d+):", text, re.MULTILINE)

    assert all(re.search(r":\d+\.\d+(\.\d+)?(-[\w-]+)?$", base) for base in bases)
    assert int(users[-1]) > 0
    assert "PYTHONDONTWRITEBYTECODE" not in text


def test_the_image_holds_the_engine_as_a_wheel_and_no_code_of_a_project() -> None:
    text = (INFRA / "images" / "headrace.Dockerfile").read_text()
    (wheel, *final) = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]

    assert re.search(r"^COPY headrace headrace$", wheel, re.MULTILINE)
    assert "uv build --wheel --build-constraints /tmp/dev.txt --require-hashes" in wheel
    assert "pip install --no-cache-dir --no-deps --no-index /wheels/*.whl" in final[0]
    assert set(re.findall(r"^COPY (\S+)/", "".join(final), re.MULTILINE)) == {"infra/images"}
    assert not re.search(r"PYTHONPATH|pipelines|COPY headrace", "".join(final))


@pytest.mark.parametrize("path", [*sorted(INFRA.rglob("*.yaml")), *SCRIPTS], ids=lambda path: path.name)
def test_no_process_finds_an_engine_in_the_workspace(path: Path) -> None:
    assert not re.search(r"PYTHONPATH|python -m (headrace|distributed|dask|airflow)", path.read_text())


def test_the_chart_and_what_stands_beside_it_run_the_image_of_this_engine() -> None:
    values = yaml.safe_load((INFRA / "helm" / "airflow-values.yaml").read_text())["images"]["airflow"]
    beside = "".join((INFRA / "helm" / name).read_text() for name in ("headrace.yaml", "task-pod.yaml"))

    assert values["tag"] == headrace.__version__
    assert set(re.findall(r"image: &image (\S+)", beside)) == {f"{values['repository']}:{headrace.__version__}"}
    assert f"{values['repository']}:{headrace.__version__}" in (INFRA / "README.md").read_text()


def test_the_images_run_one_python_which_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    versions = {
        found for path in DOCKERFILES for found in re.findall(r"^FROM python:([\d.]+)", path.read_text(), re.MULTILINE)
    }

    assert len(versions) == 1
    assert versions.pop() in SpecifierSet(project["requires-python"])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(path: Path) -> None:
    check(command("shellcheck"), path)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_stops_at_the_first_error(path: Path) -> None:
    lines = path.read_text().splitlines()

    assert any(line.startswith("set -eu") for line in lines) or lines[-1].startswith("exec ")


@pytest.mark.parametrize("path", sorted(INFRA.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_can_be_executed_as_it_is_copied(path: Path) -> None:
    assert os.access(path, os.X_OK)


def test_terraform_files_are_formatted_and_parse() -> None:
    check(command("terraform"), f"-chdir={INFRA / 'terraform'}", "fmt", "-check", "-diff")


def test_terraform_names_no_variable_that_is_not_declared_and_declares_none_that_is_not_used() -> None:
    text = "\n".join(path.read_text() for path in sorted((INFRA / "terraform").glob("*.tf")))
    example = (INFRA / "terraform" / "example.tfvars").read_text()

    declared = set(re.findall(r'^variable "(\w+)"', text, re.MULTILINE))

    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    assert set(re.findall(r"^(\w+) *=", example, re.MULTILINE)) <= declared


def test_the_bucket_is_versioned_private_and_never_forgets_what_is_current() -> None:
    text = (INFRA / "terraform" / "storage.tf").read_text()

    versioning = re.search(r'resource "aws_s3_bucket_versioning" "lake" \{(.*?)^\}', text, re.MULTILINE | re.DOTALL)
    assert versioning
    assert re.search(r'status = "Enabled"', versioning[1])
    assert set(re.findall(r"^ +(\w+) += true$", text, re.MULTILINE)) == {
        "prevent_destroy", "bucket_key_enabled",
        "block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets",
    }  # fmt: skip
    assert not re.search(r"^\s+expiration \{", text, re.MULTILINE)


def test_the_chart_sets_only_options_that_airflow_has() -> None:
    values = yaml.safe_load((INFRA / "helm" / "airflow-values.yaml").read_text())

    options = {(section, name) for section, body in values["config"].items() for name in body}

    assert options <= airflow_options()
    assert values["airflowVersion"] in (ROOT / "requirements" / "runtime.txt").read_text()


def test_the_chart_speaks_of_every_setting_that_tasks_get_in_compose() -> None:
    named = set(re.findall(r"\w+", "".join(path.read_text() for path in (INFRA / "helm").glob("*.yaml"))))

    assert SERVICES["dask-worker"]["environment"].keys() - named == set()


@pytest.mark.parametrize(
    "path", [path for path in INFRA.rglob("*") if path.suffix in {".yaml", ".sbatch"}], ids=lambda path: path.name
)
def test_no_part_of_a_dask_cluster_talks_without_tls(path: Path) -> None:
    text = path.read_text()

    assert "tcp://" not in text
    assert text.count("dask, scheduler,") == text.count("dask, scheduler, --protocol, tls,")
    assert not re.search(r"PRIVATE KEY|BEGIN CERTIFICATE", text)


@pytest.mark.parametrize("name", ["airflow-scheduler", "dask-scheduler", "dask-worker", "dask-gpu-worker"])
def test_a_container_reads_the_certificate_where_dask_looks_for_it(name: str) -> None:
    service = SERVICES[name]
    files = {value for key, value in service["environment"].items() if "__TLS__" in key}

    assert files == {"/srv/dask-tls/certificate.pem", "/srv/dask-tls/key.pem"}
    assert service["environment"]["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "true"
    assert "dask-tls:/srv/dask-tls:ro" in service["volumes"]
    assert SERVICES["dask-certificate"]["volumes"] == ["dask-tls:/srv/dask-tls"]


def test_pods_read_the_certificate_of_dask_from_a_secret_and_where_dask_looks_for_it() -> None:
    beside = yaml.safe_load((INFRA / "helm" / "headrace.yaml").read_text())["items"]
    task = yaml.safe_load((INFRA / "helm" / "task-pod.yaml").read_text())["spec"]
    pods = [task, *(one["spec"]["template"]["spec"] for one in beside if one["kind"] == "Deployment")]
    assert len(pods) == 3

    for pod in pods:
        (container,) = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "dask-tls"]
        files = {item["value"] for item in container["env"] if "__TLS__" in item["name"]}
        assert volume["secret"] == {"secretName": "headrace-dask-tls", "defaultMode": 0o440}
        assert files == {f"{mounts['dask-tls']}/{name}.pem" for name in ("certificate", "key")}


@pytest.mark.parametrize("part", sorted(path.name + "/" * path.is_dir() for path in INFRA.iterdir() if path.is_dir()))
def test_the_readme_says_of_each_part_whether_it_was_run(part: str) -> None:
    text = (INFRA / "README.md").read_text()

    (row,) = [line for line in text.splitlines() if line.startswith(f"| `{part}`")]
    tests = re.findall(r"\.\./(tests/[\w/]+\.py)", row)

    assert "not run" in row or "never run" in row or tests
    assert ("run in the tests" in row) == bool(tests)
    assert [name for name in tests if not (ROOT / name).is_file()] == []
