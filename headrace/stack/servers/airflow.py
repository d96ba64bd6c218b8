"""Airflow: API server, scheduler, DAG processor and triggerer as four processes on the stack's PostgreSQL.

Not `airflow standalone`, which orphans its children and listens on all interfaces. The API server is started and warmed
up first: a scheduler without one fails the first tasks.
"""

import importlib.metadata
import json

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.paths import write_private
from headrace.stack.server import CommandRunner, Endpoint, Probe, Server, Step, System
from headrace.stack.servers import postgres, workspace

USER = "admin"


def airflow_system(config: StackConfig) -> System:
    """The database's tables, then the API server, then the other processes."""

    async def migrate(run: CommandRunner) -> None:
        await migrate_database(config, run)

    api = config.url("airflow")

    async def is_api_healthy(_started_at: float) -> bool:
        return await probes.returns_ok(f"{api}/api/v2/monitor/health")

    async def warm_up(_run: CommandRunner) -> None:
        await probes.http_get(f"{api}/execution/health", timeout_s=120)  # built at its first request

    servers = (
        Server(name="airflow-database", prepare=migrate, depends_on=("postgres", "workspace")),
        _component(
            config, "api-server", "--host", HOST, "--port", str(config.ports["airflow"]),
            probe=is_api_healthy, post_start=warm_up,
        ),
        _component(config, "dag-processor"),
        _component(config, "triggerer", "--skip-serve-logs"),
        _component(config, "scheduler", "--skip-serve-logs", after="api-server"),
    )  # fmt: skip
    exports = {
        "HEADRACE_AIRFLOW_URL": api,
        "HEADRACE_AIRFLOW_USER": USER,
        "HEADRACE_AIRFLOW_PASSWORD": config.credentials.airflow,
    }
    return System("airflow", servers, exports, (Endpoint("Airflow", api, USER, config.credentials.airflow),))


def _component(
    config: StackConfig,
    name: str,
    *options: str,
    probe: Probe | None = None,
    after: str = "database",
    post_start: Step | None = None,
) -> Server:
    async def has_heartbeat(started_at: float) -> bool:
        health = await probes.get_json(f"{config.url('airflow')}/api/v2/monitor/health")
        return probes.has_heartbeat_since(health, name.replace("-", "_"), started_at)

    return Server(
        name=f"airflow-{name}",
        command=(environment.find_program("airflow"), name, *options),
        probe=probe or has_heartbeat,
        depends_on=(f"airflow-{after}",),
        post_start=post_start,
        env=airflow_environment(config),
        cwd=config.paths.workspace,
        runs_stages=True,
        start_timeout_s=240,
        stop_timeout_s=6,
    )


async def migrate_database(config: StackConfig, run: CommandRunner) -> None:
    """Write the password file; create or migrate the tables unless this version of Airflow has done so."""
    folder, version = config.folder("airflow"), importlib.metadata.version("apache-airflow-core")
    write_private(folder / "passwords.json", json.dumps({USER: config.credentials.airflow}))
    stamp = folder / "migrated"
    if stamp.exists() and stamp.read_text() == version:
        return
    await run(environment.find_program("airflow"), "db", "migrate", env=airflow_environment(config), cwd=folder)
    stamp.write_text(version)


def airflow_environment(config: StackConfig) -> dict[str, str]:
    """Airflow's configuration as environment variables; a key below is `section.option`."""
    folder, database = config.folder("airflow"), postgres.database_url(config, "airflow")
    options = {
        "core.dags_folder": str(config.paths.workspace / "dags"),
        "core.load_examples": "False",
        "core.executor": "LocalExecutor",
        "core.parallelism": "4",  # the default forks 32 workers
        "core.fernet_key": config.credentials.airflow_fernet,
        "core.simple_auth_manager_users": f"{USER}:admin",
        "core.simple_auth_manager_passwords_file": str(folder / "passwords.json"),
        "core.dags_are_paused_at_creation": "False",
        "database.sql_alchemy_conn": database,
        "database.sql_alchemy_conn_async": database,  # without it Airflow wants asyncpg
        "api.host": HOST,
        "api.port": str(config.ports["airflow"]),
        "api.base_url": config.url("airflow"),
        "api.instance_name": "Headrace",
        "api.secret_key": config.credentials.airflow_session,
        "api_auth.jwt_secret": config.credentials.airflow_jwt,
        "dag_processor.refresh_interval": "10",  # the default looks for new files every 300 s
        "dag_processor.min_file_process_interval": "10",
        "scheduler.scheduler_idle_sleep_time": "0.2",  # the default adds a second to every task
        "workers.execution_api_timeout": "60",
        "workers.execution_api_retries": "10",
        "logging.base_log_folder": str(config.paths.logs / "airflow"),
        "usage_data_collection.enabled": "False",
    }
    variables = {f"AIRFLOW__{key.replace('.', '__').upper()}": value for key, value in options.items()}
    return workspace.environment_for_stages(config) | {"AIRFLOW_HOME": str(folder)} | variables
