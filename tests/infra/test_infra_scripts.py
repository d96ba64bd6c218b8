"""The scripts of `infra/`, run for real with git, rclone, Dask and a shell; containers and Slurm are not available.

Promises: the workspace is created atomically and fast-forwarded only; the storage server accepts its own key only; a
Slurm job runs the installed engine on the workspace's declarations, and ends with nothing left of its cluster.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import DEVNULL, PIPE

import boto3
import pytest
from botocore.exceptions import ClientError

import headrace

IMAGES = Path(__file__).parents[2] / "infra" / "images"
SLURM = Path(__file__).parents[2] / "infra" / "slurm" / "headrace.sbatch"
BINARIES = Path(sys.executable).parent


def environment(**settings: object) -> dict[str, str]:
    author = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    path = f"{BINARIES}{os.pathsep}{os.environ['PATH']}"
    return {"HOME": os.environ["HOME"], "PATH": path} | author | {key: str(value) for key, value in settings.items()}


def run(script: Path, *words: object, **settings: object) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(script), *(str(word) for word in words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment(**settings))


def git(folder: Path, *words: str) -> str:
    return subprocess.check_output(["git", "-C", folder, *words], text=True, env=environment()).strip()


def program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch", "trunk")
    commit(folder, "dvc.yaml")
    return folder


@pytest.fixture
def stack(tmp_path: Path, checkout: Path) -> Mapping[str, Path]:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    remote = tmp_path / "state" / "origin.git"
    return {"HEADRACE_WORKSPACE": workspace, "HEADRACE_GIT_REMOTE": remote, "HEADRACE_REPOSITORY": checkout}


def commit(folder: Path, name: str) -> None:
    (folder / name).write_text(name)
    git(folder, "add", name)
    git(folder, "commit", "--quiet", "--message", name)


def open_workspace(stack: Mapping[str, Path]) -> str:
    done = run(IMAGES / "open-workspace.sh", **stack)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_workspace_is_cloned_and_its_releases_go_to_a_repository_beside_it(stack: Mapping[str, Path]) -> None:
    open_workspace(stack)

    workspace = stack["HEADRACE_WORKSPACE"]
    git(workspace, "commit", "--quiet", "--allow-empty", "--message", "release")
    git(workspace, "push", "--quiet", "origin", "main")

    assert (workspace / "dvc.yaml").read_text() == "dvc.yaml"
    assert git(stack["HEADRACE_GIT_REMOTE"], "log", "-1", "--format=%s", "main") == "release"


def test_a_partial_clone_of_another_branch_has_no_contents_of_old_files(
    stack: Mapping[str, Path], checkout: Path
) -> None:
    (checkout / "dvc.yaml").write_text("newer")
    git(checkout, "commit", "--quiet", "--all", "--message", "newer")
    old = git(checkout, "rev-parse", "HEAD~1:dvc.yaml")
    git(checkout, "config", "uploadpack.allowFilter", "true")
    settings = {"HEADRACE_GIT_REMOTE": f"file://{checkout}", "HEADRACE_CODE_BRANCH": "trunk"}

    done = run(IMAGES / "open-workspace.sh", **{**stack, **settings}, HEADRACE_CLONE_FILTER="blob:none")

    workspace = stack["HEADRACE_WORKSPACE"]
    assert done.returncode == 0, done.stderr
    assert (workspace / "dvc.yaml").read_text() == "newer"
    assert f"?{old}" in git(workspace, "rev-list", "--objects", "--all", "--missing=print")


def test_a_step_forward_in_the_checkout_reaches_the_workspace(stack: Mapping[str, Path], checkout: Path) -> None:
    open_workspace(stack)
    commit(checkout, "params.yaml")

    said = open_workspace(stack)

    assert (stack["HEADRACE_WORKSPACE"] / "params.yaml").exists()
    assert "unchanged" not in said


def test_releases_in_the_workspace_survive_a_restart(stack: Mapping[str, Path]) -> None:
    open_workspace(stack)
    workspace = stack["HEADRACE_WORKSPACE"]
    commit(workspace, "dvc.lock")
    git(workspace, "push", "--quiet", "origin", "main")

    said = open_workspace(stack)

    assert (workspace / "dvc.lock").exists()
    assert "unchanged" not in said


def test_histories_that_have_diverged_are_left_and_reported(stack: Mapping[str, Path], checkout: Path) -> None:
    open_workspace(stack)
    workspace = stack["HEADRACE_WORKSPACE"]
    commit(workspace, "dvc.lock")
    git(workspace, "push", "--quiet", "origin", "main")
    commit(checkout, "params.yaml")

    said = open_workspace(stack)

    assert "have diverged; merge them, or set HEADRACE_GIT_REMOTE" in said
    assert (workspace / "dvc.lock").exists()


def test_a_start_that_was_cut_short_is_finished_by_the_next(stack: Mapping[str, Path]) -> None:
    open_workspace(stack)
    workspace = stack["HEADRACE_WORKSPACE"]
    (workspace / ".git" / "index").unlink()
    (workspace / "dvc.yaml").unlink()
    (workspace / ".clone").mkdir()

    open_workspace(stack)

    assert (workspace / "dvc.yaml").read_text() == "dvc.yaml"


def test_a_mount_that_is_no_checkout_is_refused(stack: Mapping[str, Path], tmp_path: Path) -> None:
    done = run(IMAGES / "open-workspace.sh", **{**stack, "HEADRACE_REPOSITORY": tmp_path})

    assert done.returncode == 1
    assert f"{tmp_path}: expected a git checkout with a commit, found none" in done.stderr


@contextmanager
def serving(root: Path, pair: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    env = environment(RCLONE_AUTH_KEY=pair, HEADRACE_BUCKET="lake", STORAGE_ROOT=root, STORAGE_ADDRESS=address)
    server = subprocess.Popen(["sh", IMAGES / "serve-bucket.sh"], env=env, stderr=DEVNULL)
    try:
        wait_for(address)
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait(10)


def wait_for(address: str) -> None:
    host, port = address.split(":")
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"nothing listens on {address} after 10 s")


def buckets(endpoint: str, access: str, secret: str) -> list[str]:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name="us-east-1",
    )
    with closing(client):
        return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]


@pytest.mark.server
def test_the_storage_server_has_its_bucket_and_opens_it_to_its_own_key_only(tmp_path: Path) -> None:
    access, secret, wrong = "a" * 20, "s" * 40, "w" * 40

    with serving(tmp_path, f'"{access},{secret}"') as endpoint:
        assert buckets(endpoint, access, secret) == ["lake"]
        with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
            buckets(endpoint, access, wrong)


def test_the_storage_server_does_not_start_without_a_key() -> None:
    done = run(IMAGES / "serve-bucket.sh", HEADRACE_BUCKET="lake")

    assert done.returncode != 0
    assert "set RCLONE_AUTH_KEY" in done.stderr


@pytest.fixture
def airflow() -> Iterator[str]:
    """What Airflow's API server answers while its triggerer is gone."""
    health = {"scheduler": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}, "dag_processor": None}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/v2/monitor/health" else 404)
            self.end_headers()
            self.wfile.write(json.dumps(health).encode())

        def log_message(self, *_words: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(("process", "code"), [("scheduler", 0), ("triggerer", 1), ("dag_processor", 1)])
def test_an_airflow_process_is_healthy_when_the_api_server_says_so(airflow: str, process: str, code: int) -> None:
    done = run(IMAGES / "airflow-healthy.sh", process, AIRFLOW_API_URL=airflow)

    assert done.returncode == code
    assert code == 0 or f"{process}: expected healthy, found" in done.stderr


def test_an_airflow_process_is_not_healthy_when_nobody_answers() -> None:
    done = run(IMAGES / "airflow-healthy.sh", "scheduler", AIRFLOW_API_URL="http://127.0.0.1:9")

    assert done.returncode != 0


def test_a_lock_is_installed_by_hash_and_its_own_build_tool_comes_first(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    program(tmp_path / "pip", f'#!/bin/bash\necho "pip $*" >> {calls}\ncat "${{@: -1}}" >> {calls}\n')
    lock = tmp_path / "lock.txt"
    lock.write_text(
        "# made by a tool\nbag==1 \\\n    --hash=sha256:aa\nsetuptools==2 \\\n    --hash=sha256:bb\nzip==3\n"
    )

    done = run(IMAGES / "install-lock.sh", lock, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    first, second = calls.read_text().removeprefix("pip ").split("pip ")
    assert done.returncode == 0
    assert first.split("\n", 1)[1] == "setuptools==2 \\\n    --hash=sha256:bb\n"
    assert "--no-build-isolation" in second
    assert all("--require-hashes" in call and "--no-deps" in call for call in (first, second))


def test_the_certificate_of_a_dask_cluster_is_created_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("the script needs openssl")
    files = [tmp_path / name for name in ("certificate.pem", "key.pem")]
    (tmp_path / ".key.pem").write_text("half of a key, from a start that was killed")

    first = run(IMAGES / "create-certificate.sh", tmp_path)
    created = [path.read_text() for path in files]
    again = run(IMAGES / "create-certificate.sh", tmp_path)

    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert [path.read_text() for path in files] == created
    assert sorted(tmp_path.iterdir()) == files
    assert (tmp_path / "key.pem").stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(cafile=str(files[0])).load_cert_chain(*map(str, files))


JOB = {"SLURM_JOB_ID": 7, "SLURM_NTASKS": 1, "SLURM_CPUS_PER_TASK": 1, "HEADRACE_CLUSTER_INTERFACE": "lo"}


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The workspace of a node with the real Dask, an `srun` that runs its command here, a stand-in for `headrace`."""
    if not shutil.which("openssl") or not Path("/sys/class/net/lo").exists():
        pytest.skip("the job script needs Linux and openssl")
    workspace, programs = tmp_path / "workspace", tmp_path / "bin"
    for folder in (workspace, programs):
        folder.mkdir()
    program(programs / "srun", '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\nexec "$@"\n')
    program(
        programs / "headrace",
        f"#!{sys.executable}\n"
        "import os, sys, time\n"
        "from distributed import Client\n"
        "from headrace.project.loading import project_root\n"
        "with Client(os.environ['DASK_SCHEDULER_ADDRESS']) as cluster:\n"
        "    print('answer', *sys.argv[1:], cluster.submit(project_root).result(), cluster.scheduler.address[:6])\n"
        "sys.stdout.flush()\n"
        "time.sleep(float(os.environ.get('LAST_S', '0')))\n"
        "sys.exit(int(os.environ.get('FAIL', '0')))\n",
    )
    project_with_another_engine(workspace)
    return workspace


def project_with_another_engine(folder: Path) -> None:
    """A project as a clone of this repository is one: it holds an engine, which must not run."""
    for name, text in {
        "dvc.yaml": "stages: {}\n",
        "pipelines/__init__.py": "",
        "headrace/__init__.py": "raise RuntimeError('not the engine that is installed')\n",
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def job(node: Path, **settings: object) -> dict[str, str]:
    path = os.pathsep.join((str(node.parent / "bin"), str(BINARIES), os.environ["PATH"]))
    installed = {"PYTHONPATH": Path(headrace.__file__).parents[1]}
    return environment(**{**JOB, **installed, "SLURM_SUBMIT_DIR": node, "PATH": path, **settings})


def submit(node: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    return run(SLURM, "flights", **job(node, **settings))


def find_leftovers(node: Path) -> list[str]:
    """What still runs in the job's workspace, and what is still in its scratch folder."""
    marked = f"HEADRACE_WORKSPACE={node}\0".encode()
    running = (entry.parent.name for entry in Path("/proc").glob("[0-9]*/environ") if marked in readable(entry))
    return [*running, *(path.name for path in (node / ".headrace").iterdir())]


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.slow
def test_a_slurm_job_runs_the_dataset_on_an_encrypted_cluster_of_its_own_and_leaves_nothing(node: Path) -> None:
    done = submit(node)

    assert f"answer run flights {node} tls://" in done.stdout, done.stderr
    assert done.returncode == 0
    assert not find_leftovers(node)


@pytest.mark.slow
def test_a_slurm_job_ends_as_its_run_ends(node: Path) -> None:
    assert submit(node, FAIL=3).returncode == 3


@pytest.mark.slow
def test_a_slurm_job_that_is_told_to_end_takes_its_cluster_with_it(node: Path) -> None:
    env = job(node, LAST_S=60)
    with subprocess.Popen(["bash", SLURM, "flights"], env=env, stdout=PIPE, stderr=DEVNULL, text=True) as running:
        assert running.stdout
        assert "answer" in running.stdout.readline()
        running.terminate()

    assert running.returncode == 143
    assert not find_leftovers(node)


@pytest.mark.slow
def test_a_slurm_job_whose_workers_never_come_says_so_and_what_to_run_next(node: Path) -> None:
    program(node.parent / "bin" / "srun", "#!/bin/sh\nexit 1\n")

    done = submit(node, HEADRACE_CLUSTER_TIMEOUT_S=10)

    assert done.returncode == 1
    assert "slurm job 7: no Dask worker after 10 s" in done.stderr
    assert "Next: `sbatch infra/slurm/headrace.sbatch flights`" in done.stderr
