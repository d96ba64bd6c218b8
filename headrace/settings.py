"""Where things run: the environment, read once by each command and passed on as `Settings`.

The first that sets a variable decides: the environment, the workspace's `.env`, the `stack.env` that
`headrace stack up` wrote there. What changes the data is in `params.yaml`; what is true of one dataset is in its
declaration.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace.errors import NotConfiguredError
from headrace.workspace import load_env_files


class Settings(BaseSettings):
    """The environment of one run. Secrets appear neither in `repr` nor in an error about another field."""

    model_config = SettingsConfigDict(
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        populate_by_name=True,
    )

    workspace: Path = Field(Path(), validation_alias="HEADRACE_WORKSPACE")
    """The git clone whose tables are read and written."""

    code_branch: str = Field("main", validation_alias="HEADRACE_CODE_BRANCH")
    """Branch of the git remote with the code that releases are made with."""

    release_branch: str | None = Field(None, validation_alias="HEADRACE_RELEASE_BRANCH")
    """Branch that releases are pushed to (default: the code branch). Set it where the code branch is protected."""

    run_refs: str = Field(
        "refs/headrace/runs", pattern=r"^refs(/[a-z0-9][a-z0-9_-]*){2,}$", validation_alias="HEADRACE_RUN_REFS"
    )
    """Where git keeps the state of runs; `refs/heads/headrace-runs` for a host that takes branches and tags only."""

    push_runs: bool = Field(default=True, validation_alias="HEADRACE_PUSH_RUNS")
    """Whether the state of a run is pushed after each command. Without it, a run stays on one machine."""

    git_timeout_s: float = Field(600, gt=0, validation_alias="HEADRACE_GIT_TIMEOUT_S")
    """Seconds after which a git command that talks to the remote is given up, as a temporary failure."""

    statement_timeout_s: float = Field(3600, ge=0, validation_alias="HEADRACE_STATEMENT_TIMEOUT_S")
    """Seconds after which PostgreSQL gives up a statement on a source, as a temporary failure; 0 for no limit."""

    run_days: float = Field(14, gt=0, validation_alias="HEADRACE_RUN_DAYS")
    """Days after which `headrace gc` ends a run that has written nothing."""

    engine: Literal["cpu", "gpu"] = Field("cpu", validation_alias="HEADRACE_ENGINE")
    """What collects the frames: Polars, or RAPIDS (`cudf-polars`) with fallback to Polars."""

    scheduler: str | None = Field(None, validation_alias="DASK_SCHEDULER_ADDRESS")
    """Address of a running Dask scheduler (`tls://host:port`); without one, threads of this process."""

    commit: Literal["local", "remote"] = Field("local", validation_alias="HEADRACE_COMMIT")
    """Where partitions are written: into the workspace, or straight to the DVC remote, with only manifests here."""

    threads: int | None = Field(None, gt=0, validation_alias="HEADRACE_THREADS")
    """Partitions that this process computes at the same time (default: one per core)."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = Field(
        "INFO", validation_alias="HEADRACE_LOG_LEVEL"
    )
    """What the command line logs on standard error; `-v` and `-q` raise and lower it."""

    log_format: Annotated[Literal["text", "json"], BeforeValidator(str.lower)] = Field(
        "text", validation_alias="HEADRACE_LOG_FORMAT"
    )
    """Plain log lines, or one JSON object per line."""

    bucket: str = Field("headrace", validation_alias="HEADRACE_BUCKET")
    """Bucket that the object sources are read from."""

    s3_endpoint: str | None = Field(None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    """URL of the S3 API (default: AWS)."""

    database_url: SecretStr | None = Field(None, validation_alias="HEADRACE_DATABASE_URL")
    """SQLAlchemy URL of the database that table sources are read from."""

    label_studio_url: str | None = Field(None, validation_alias="LABEL_STUDIO_URL")
    label_studio_token: SecretStr | None = Field(None, validation_alias="LABEL_STUDIO_API_KEY")

    pseudonym_key: SecretStr | None = Field(None, validation_alias="HEADRACE_PSEUDONYM_KEY")
    """Secret from which annotators' pseudonyms are derived; with another one the same people get other pseudonyms."""

    feast_registry_url: str | None = Field(None, validation_alias="FEAST_REGISTRY_URL")
    """SQLAlchemy URL of Feast's registry; `.env.example` shows one."""

    feast_online_store_path: str | None = Field(None, validation_alias="FEAST_ONLINE_STORE_PATH")
    """SQLite file of the online store, relative to `feature_repo/` if not absolute."""


CONNECTION = re.compile(r"[a-z][a-z0-9_]*")
"""What a connection may be called: the middle of the names of environment variables, in lower case."""


class Connection(BaseSettings):
    """Endpoint and credentials of one named connection: HEADRACE_CONNECTION_<NAME>_ENDPOINT and so on."""

    model_config = SettingsConfigDict(
        extra="ignore", frozen=True, hide_input_in_errors=True, env_ignore_empty=True, populate_by_name=True
    )

    endpoint: str | None = Field(None, pattern=r"^https?://[^\s@]+$")
    """URL of the server, without credentials; by default AWS, Google or Azure."""

    profile: str | None = None
    """Name of a profile in AWS's configuration, with credentials and region."""

    region: str | None = None

    access_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    session_token: SecretStr | None = None
    """S3 credentials; without them, the usual chain."""

    credentials_file: str | None = None
    """Google: path of the file with the service account."""

    account: str | None = None
    """Azure: name of the storage account."""

    account_key: SecretStr | None = None
    sas_token: SecretStr | None = None
    """Azure: one of them; without them, the usual chain."""

    anonymous: bool = False
    """Google and Azure: requests are not signed, as a public bucket allows."""

    prefix: str = Field("", exclude=True)
    """What the names of its variables begin with."""


def load_connection(name: str) -> Connection:
    """The connection of this name, from the environment.

    Raises:
        NotConfiguredError: No variable of it is set, or one has a value that it cannot have.
    """
    prefix = connection_prefix(name)
    variables = [f"{prefix}{each.upper()}" for each in Connection.model_fields if each != "prefix"]
    if not any(os.environ.get(variable) for variable in variables):
        raise NotConfiguredError(
            f"connection {name!r}: expected its variables in the environment or in .env, found none. Set those it needs"
            f" of {', '.join(variables)} (docs/sources.md)."
        )
    try:
        connection = Connection(_env_prefix=prefix, prefix=prefix)
    except ValidationError as error:
        found = "; ".join(f"{prefix}{str(each['loc'][0]).upper()}: {each['msg']}" for each in error.errors())
        raise NotConfiguredError(f"connection {name!r}: {found}. Correct it in the environment or in .env.") from None
    if bool(connection.access_key) != bool(connection.secret_key):
        raise NotConfiguredError(
            f"connection {name!r}: expected both or none of {prefix}ACCESS_KEY and {prefix}SECRET_KEY, found one."
        )
    return connection


def connection_prefix(name: str) -> str:
    """What the names of a connection's variables begin with."""
    return f"HEADRACE_CONNECTION_{name.upper()}_"


def load_settings(workspace: Path | None = None) -> Settings:
    """The settings of a workspace, by default the one that HEADRACE_WORKSPACE names, or the current folder.

    Variables of its files that the environment does not set are added to the environment of this process, so that
    libraries that read the environment themselves (boto3, DVC, Feast) see them, too.

    Raises:
        NotConfiguredError: A variable has a value that it cannot have.
    """
    root = workspace or Path(os.environ.get("HEADRACE_WORKSPACE", ""))
    load_env_files(root)
    try:
        return Settings(workspace=root)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise NotConfiguredError(
            f"{found}. Correct it in the environment or in .env (.env.example says what it is), then run the same"
            " command again."
        ) from None
