"""Airflow: API server, scheduler, DAG processor and triggerer as four processes on our PostgreSQL.

Not `airflow standalone`, which orphans its children and listens on all interfaces. The API server comes first, healthy
and warmed, because a scheduler that finds none fails the first tasks.
"""

import importlib.metadata
import json

from headrace.stack import environment, probes
from headrace.stack.paths import ADDRESS, Site, write_private
from headrace.stack.server import Page, Probe, Runner, Server, Step, System
from headrace.stack.servers import postgres, workspace

USER = "admin"


def system(site: Site) -> System:
    """The database's tables, then the API server, then the others."""

    async def migrate(run: Runner) -> None:
        await migrate_once(site, run)

    api = site.url("airflow")

    async def api_healthy(_started: float) -> bool:
        return await probes.is_ok(f"{api}/api/v2/monitor/health")

    async def warm(_run: Runner) -> None:
        await probes.get(f"{api}/execution/health", timeout_s=120)  # built at its first request: 4 s of CPU

    servers = (
        Server(name="airflow-database", prepare=migrate, needs=("postgres", "workspace")),
        _part(
            site, "api-server", "--host", ADDRESS, "--port", str(site.ports["airflow"]),
            healthy=api_healthy, warm=warm,
        ),
        _part(site, "dag-processor"),
        _part(site, "triggerer", "--skip-serve-logs"),
        _part(site, "scheduler", "--skip-serve-logs", after="api-server"),
    )  # fmt: skip
    exports = {
        "HEADRACE_AIRFLOW_URL": api,
        "HEADRACE_AIRFLOW_USER": USER,
        "HEADRACE_AIRFLOW_PASSWORD": site.secrets.airflow,
    }
    return System("airflow", servers, exports, (Page("Airflow", api, USER, site.secrets.airflow),))


def _part(
    site: Site,
    part: str,
    *options: str,
    healthy: Probe | None = None,
    after: str = "database",
    warm: Step | None = None,
) -> Server:
    async def beats(started: float) -> bool:
        health = await probes.get_json(f"{site.url('airflow')}/api/v2/monitor/health")
        return probes.beats_since(health, part.replace("-", "_"), started)

    return Server(
        name=f"airflow-{part}",
        command=(str(environment.binaries() / "airflow"), part, *options),
        healthy=healthy or beats,
        needs=(f"airflow-{after}",),
        follow_up=warm,
        env=settings(site),
        cwd=site.home.workspace,
        pipeline=True,
        limit_s=240,
        grace_s=6,
    )


async def migrate_once(site: Site, run: Runner) -> None:
    """Write the password file; make or bring forward the tables when this version has not done so yet."""
    folder, version = site.folder("airflow"), importlib.metadata.version("apache-airflow-core")
    write_private(folder / "passwords.json", json.dumps({USER: site.secrets.airflow}))
    stamp = folder / "migrated"
    if stamp.exists() and stamp.read_text() == version:
        return
    await run(str(environment.binaries() / "airflow"), "db", "migrate", env=settings(site), cwd=folder)
    stamp.write_text(version)


def settings(site: Site) -> dict[str, str]:
    """Airflow's configuration, all of it in the environment; a key is `section.option`."""
    folder, database = site.folder("airflow"), postgres.url(site, "airflow")
    options = {
        "core.dags_folder": str(site.home.workspace / "dags"),
        "core.load_examples": "False",
        "core.executor": "LocalExecutor",
        "core.parallelism": "4",  # the default forks 32 workers
        "core.fernet_key": site.secrets.airflow_fernet,
        "core.simple_auth_manager_users": f"{USER}:admin",
        "core.simple_auth_manager_passwords_file": str(folder / "passwords.json"),
        "core.dags_are_paused_at_creation": "False",
        "database.sql_alchemy_conn": database,
        "database.sql_alchemy_conn_async": database,  # else Airflow wants asyncpg
        "api.host": ADDRESS,
        "api.port": str(site.ports["airflow"]),
        "api.base_url": site.url("airflow"),
        "api.instance_name": "Headrace",
        "api.secret_key": site.secrets.airflow_session,
        "api_auth.jwt_secret": site.secrets.airflow_jwt,
        "dag_processor.refresh_interval": "10",  # new files are looked for every 300 s by default
        "dag_processor.min_file_process_interval": "10",
        "scheduler.scheduler_idle_sleep_time": "0.2",  # the default adds a second to every task
        "workers.execution_api_timeout": "60",
        "workers.execution_api_retries": "10",
        "logging.base_log_folder": str(site.home.logs / "airflow"),
        "usage_data_collection.enabled": "False",
    }
    named = {f"AIRFLOW__{key.replace('.', '__').upper()}": value for key, value in options.items()}
    return workspace.env(site) | {"AIRFLOW_HOME": str(folder)} | named
