"""Dask: a scheduler and two workers in the workspace."""

import importlib.util

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.server import CommandRunner, Endpoint, Server, System
from headrace.stack.servers import workspace

WORKERS = 2


def dask_system(config: StackConfig) -> System:
    """A scheduler, and workers of one thread each. A worker that dies is replaced: Dask runs its work again.

    They are started by the command `dask`. `python -m distributed…` would put the workspace on the import path, and
    with it whatever engine a workspace holds.
    """
    address = f"tcp://{HOST}:{config.ports['dask']}"
    dashboard = config.url("dask-dashboard")
    has_plots = importlib.util.find_spec("bokeh") is not None  # without it Dask serves tables instead of plots
    endpoint = Endpoint("Dask", f"{dashboard}{'/status' if has_plots else '/info/main/workers.html'}")
    servers = (_scheduler(config), *(_worker(config, address, number) for number in range(1, WORKERS + 1)))
    return System("dask", servers, {"DASK_SCHEDULER_ADDRESS": address}, (endpoint,))


def _scheduler(config: StackConfig) -> Server:
    async def is_healthy(_started_at: float) -> bool:
        return await probes.returns_ok(f"{config.url('dask-dashboard')}/health")

    return Server(
        name="dask-scheduler",
        command=(
            environment.find_program("dask"), "scheduler", "--host", HOST, "--port", str(config.ports["dask"]),
            "--dashboard-address", f"{HOST}:{config.ports['dask-dashboard']}",
        ),
        probe=is_healthy,
        depends_on=("workspace",),
        env=workspace.environment_for_stages(config),
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
            "--death-timeout", "60",
        ),
        probe=is_healthy,
        depends_on=("dask-scheduler",),
        prepare=prepare,
        env=workspace.environment_for_stages(config),
        cwd=config.paths.workspace,
        runs_stages=True,
        stop_timeout_s=3,
        max_restarts=5,
    )  # fmt: skip
