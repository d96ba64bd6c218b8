"""Label Studio: no sign-up without an invitation, no analytics, no outgoing calls; in an environment of its own."""

import shutil
from pathlib import Path

from headrace.stack import environment, probes
from headrace.stack.config import HOST, StackConfig
from headrace.stack.errors import NotInstalledError
from headrace.stack.label_studio_environment import (
    NO_OUTGOING_CALLS,
    InstallState,
    LabelStudioEnvironment,
    label_studio_environment,
)
from headrace.stack.server import CommandRunner, Endpoint, Server, System

NAME = "label-studio"
USER = "admin@localhost"


def label_studio_system(config: StackConfig) -> System:
    """One server on SQLite, whose data is copied from the template that the installation made.

    Raises:
        NotInstalledError: Its environment is missing.
    """
    installed = label_studio_environment()
    if installed.check() is InstallState.MISSING:
        raise NotInstalledError(
            f"Label Studio is not installed: expected a finished environment in {installed.folder}.\n"
            "Next: `headrace stack install`; or start without it: `headrace stack up --only s3,postgres,dask,airflow`."
        )

    async def prepare(_run: CommandRunner) -> None:
        copy_template(installed.template, config.folder(NAME))

    async def is_healthy(_started_at: float) -> bool:
        return await probes.returns_ok(f"{config.url(NAME)}/health")

    server = Server(
        name=NAME,
        command=(
            str(installed.program), "start", "--no-browser", "--internal-host", HOST, "--port", str(config.ports[NAME]),
        ),
        probe=is_healthy,
        prepare=prepare,
        env=server_environment(config, installed),
        cwd=config.paths.data,
        start_timeout_s=300,
        stop_timeout_s=3,
    )  # fmt: skip
    exports = {
        "LABEL_STUDIO_URL": config.url(NAME),
        "LABEL_STUDIO_API_KEY": config.credentials.label_studio_token,
        "HEADRACE_PSEUDONYM_KEY": config.credentials.pseudonym_key,
    }
    endpoint = Endpoint("Label Studio", config.url(NAME), USER, config.credentials.label_studio)
    return System(NAME, (server,), exports, (endpoint,))


def server_environment(config: StackConfig, installed: LabelStudioEnvironment) -> dict[str, str]:
    """Settings of the server."""
    return environment.base_environment() | NO_OUTGOING_CALLS | {
        "VIRTUAL_ENV": str(installed.folder),
        "LABEL_STUDIO_BASE_DATA_DIR": str(config.folder(NAME)),
        "LABEL_STUDIO_HOST": config.url(NAME),
        "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
        # Everybody with an account can import tasks from an address, without it from any server in reach.
        "LABEL_STUDIO_SSRF_PROTECTION_ENABLED": "true",
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",  # read at the first start, when the organization is created
        "LABEL_STUDIO_USERNAME": USER,
        "LABEL_STUDIO_PASSWORD": config.credentials.label_studio,
        "LABEL_STUDIO_USER_TOKEN": config.credentials.label_studio_token,
        "fflag_feat_utc_210_prediction_validation_15082025": "true",  # without it a malformed prediction is accepted
    }  # fmt: skip


def copy_template(template: Path, data: Path) -> None:
    """Copy the migrated tables, atomically, but not `.env`: the key that signs sessions is generated per home.

    Without a template the server migrates at its first start.
    """
    if data.exists() or not template.exists():
        return
    draft = data.with_name(f"{data.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(template, draft, ignore=shutil.ignore_patterns(".env"))
    draft.replace(data)
