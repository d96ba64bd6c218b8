"""Dask: a scheduler and two workers that import `pipelines` from the workspace."""

import importlib.util
import sys

from headrace.stack import probes
from headrace.stack.paths import ADDRESS, Site
from headrace.stack.server import Page, Runner, Server, System
from headrace.stack.servers import workspace

WORKERS = 2


def system(site: Site) -> System:
    """A scheduler, workers of one thread each. A worker that dies is replaced: Dask runs its work again."""
    address = f"tcp://{ADDRESS}:{site.ports['dask']}"
    dashboard = site.url("dask-dashboard")
    plots = importlib.util.find_spec("bokeh") is not None  # without it Dask serves tables instead of plots
    page = Page("Dask", f"{dashboard}{'/status' if plots else '/info/main/workers.html'}")
    servers = (_scheduler(site), *(_worker(site, address, number) for number in range(1, WORKERS + 1)))
    return System("dask", servers, {"DASK_SCHEDULER_ADDRESS": address}, (page,))


def _scheduler(site: Site) -> Server:
    async def healthy(_started: float) -> bool:
        return await probes.is_ok(f"{site.url('dask-dashboard')}/health")

    return Server(
        name="dask-scheduler",
        command=(
            sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", ADDRESS,
            "--port", str(site.ports["dask"]), "--dashboard-address", f"{ADDRESS}:{site.ports['dask-dashboard']}",
        ),
        healthy=healthy,
        needs=("workspace",),
        env=workspace.env(site),
        cwd=site.home.workspace,
        pipeline=True,
        grace_s=3,
    )  # fmt: skip


def _worker(site: Site, address: str, number: int) -> Server:
    name = f"dask-worker-{number}"
    scratch = site.folder("dask")

    async def prepare(_run: Runner) -> None:
        scratch.mkdir(parents=True, exist_ok=True)

    async def healthy(_started: float) -> bool:
        identity = await probes.get_json(f"{site.url('dask-dashboard')}/json/identity.json")
        return any(worker.get("id") == name for worker in identity.get("workers", {}).values())

    return Server(
        name=name,
        command=(
            sys.executable, "-m", "distributed.cli.dask_worker", address, "--name", name, "--nthreads", "1",
            "--no-nanny", "--host", ADDRESS, "--dashboard-address", f"{ADDRESS}:0",
            "--local-directory", str(scratch), "--death-timeout", "60",
        ),
        healthy=healthy,
        needs=("dask-scheduler",),
        prepare=prepare,
        env=workspace.env(site),
        cwd=site.home.workspace,
        pipeline=True,
        grace_s=3,
        restarts=5,
    )  # fmt: skip
