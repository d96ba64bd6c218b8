"""Dask: a scheduler and two workers, which talk to holders of the stack's key alone.

Dask runs what its clients send, as the user who started it. So every connection is encrypted, and both ends must show a
certificate that was signed with a key that nobody but this user can read.
"""

import importlib.util
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.paths import write_private
from headrace.stack.server import CommandRunner, Endpoint, Server, System
from headrace.stack.servers import workspace

WORKERS = 2
REQUIRE_ENCRYPTION = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true"}
"""For the servers alone: in a shell it would break every plain Dask cluster that a notebook starts."""


def dask_system(config: StackConfig) -> System:
    """A scheduler, and workers of one thread each. A worker that dies is replaced: Dask runs its work again.

    They are started by the command `dask`. `python -m distributed…` would put the workspace on the import path, and
    with it whatever engine a workspace holds.
    """
    address = f"tls://{HOST}:{config.ports['dask']}"
    dashboard = config.url("dask-dashboard")
    has_plots = importlib.util.find_spec("bokeh") is not None  # without it Dask serves tables instead of plots
    endpoint = Endpoint("Dask", f"{dashboard}{'/status' if has_plots else '/info/main/workers.html'}")
    servers = (_scheduler(config), *(_worker(config, address, number) for number in range(1, WORKERS + 1)))
    return System("dask", servers, {"DASK_SCHEDULER_ADDRESS": address, **_client_settings(config)}, (endpoint,))


def _client_settings(config: StackConfig) -> dict[str, str]:
    """Dask's own settings: a plain `Client(address)` has the certificate."""
    certificate, key = _certificate_files(config)
    tls = {"CA_FILE": certificate, "CLIENT__CERT": certificate, "CLIENT__KEY": key}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in tls.items()}


def _server_options(config: StackConfig) -> tuple[str, ...]:
    certificate, key = map(str, _certificate_files(config))
    return ("--protocol", "tls", "--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key)


def _certificate_files(config: StackConfig) -> tuple[Path, Path]:
    """The certificate, which is its own authority, and its key."""
    folder = config.folder("dask")
    return folder / "certificate.pem", folder / "key.pem"


def _write_certificate(config: StackConfig) -> None:
    """Write a new key and its certificate, valid for a year; only their owner can read them."""
    from distributed.security import Security  # noqa: PLC0415  only a stack with Dask pays for the import

    security = Security.temporary()
    certificate, key = _certificate_files(config)
    write_private(certificate, security.tls_ca_file)
    write_private(key, security.tls_scheduler_key)


def _scheduler(config: StackConfig) -> Server:
    async def prepare(_run: CommandRunner) -> None:
        _write_certificate(config)

    async def is_healthy(_started_at: float) -> bool:
        return await probes.returns_ok(f"{config.url('dask-dashboard')}/health")

    return Server(
        name="dask-scheduler",
        command=(
            environment.find_program("dask"), "scheduler", "--host", HOST, "--port", str(config.ports["dask"]),
            "--dashboard-address", f"{HOST}:{config.ports['dask-dashboard']}", *_server_options(config),
        ),
        probe=is_healthy,
        depends_on=("workspace",),
        prepare=prepare,
        env=workspace.environment_for_stages(config) | REQUIRE_ENCRYPTION,
        cwd=config.paths.workspace,
        runs_stages=True,
        stop_timeout_s=3,
    )  # fmt: skip


def _worker(config: StackConfig, address: str, number: int) -> Server:
    name = f"dask-worker-{number}"
    scratch = config.folder("dask")

    async def prepare(_run: CommandRunner) -> None:
        scratch.mkdir(parents=True, exist_ok=True)

    async def is_healthy(_started_at: float) -> bool:
        identity = await probes.get_json(f"{config.url('dask-dashboard')}/json/identity.json")
        return any(worker.get("id") == name for worker in identity.get("workers", {}).values())

    return Server(
        name=name,
        command=(
            environment.find_program("dask"), "worker", address, "--name", name, "--nthreads", "1", "--no-nanny",
            "--host", HOST, "--dashboard-address", f"{HOST}:0", "--local-directory", str(scratch),
            "--death-timeout", "60", *_server_options(config),
        ),
        probe=is_healthy,
        depends_on=("dask-scheduler",),
        prepare=prepare,
        env=workspace.environment_for_stages(config) | REQUIRE_ENCRYPTION,
        cwd=config.paths.workspace,
        runs_stages=True,
        stop_timeout_s=3,
        max_restarts=5,
    )  # fmt: skip
