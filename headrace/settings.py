"""Where it runs: the environment, read once, at the edge, and passed in from there.

Order, the first that speaks wins: environment variables, the workspace's `.env`, what `headrace stack up` wrote there.
What changes the data is not here but in `params.yaml`; what is true of one dataset, in its declaration.
"""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from headrace.workspace import load_env_files


class Settings(BaseSettings):
    """The environment of one run. Secrets never show in `repr`, nor in an error about another field."""

    model_config = SettingsConfigDict(
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        env_ignore_empty=True,
        populate_by_name=True,
    )

    workspace: Path = Field(Path(), validation_alias="HEADRACE_WORKSPACE")
    """The git clone whose tables are read and written."""

    engine: Literal["cpu", "gpu"] = Field("cpu", validation_alias="HEADRACE_ENGINE")
    """Who collects the frames: Polars, or RAPIDS (`cudf-polars`) with fallback to Polars."""

    scheduler: str | None = Field(None, validation_alias="DASK_SCHEDULER_ADDRESS")
    """Address of a running Dask scheduler (`tcp://host:port`); without one, threads of this process."""

    commit: Literal["local", "remote"] = Field("local", validation_alias="HEADRACE_COMMIT")
    """Where partitions are kept: in the workspace, or straight on the DVC remote, with manifests alone here."""

    threads: int | None = Field(None, gt=0, validation_alias="HEADRACE_THREADS")
    """Partitions worked on at once in this process (default: one a core)."""

    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = Field(
        "INFO", validation_alias="HEADRACE_LOG_LEVEL"
    )
    """What the command line logs on standard error; `-v` and `-q` raise and lower it."""

    log_format: Annotated[Literal["text", "json"], BeforeValidator(str.lower)] = Field(
        "text", validation_alias="HEADRACE_LOG_FORMAT"
    )
    """Log lines for people, or one JSON object per line."""

    bucket: str = Field("headrace", validation_alias="HEADRACE_BUCKET")
    """Bucket that the object sources are read from."""

    s3_endpoint: str | None = Field(None, validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    """Address of the S3 API; without one, AWS."""

    database_url: SecretStr | None = Field(None, validation_alias="HEADRACE_DATABASE_URL")
    """SQLAlchemy address of the database that the table sources are read from."""

    label_studio_url: str | None = Field(None, validation_alias="LABEL_STUDIO_URL")
    label_studio_token: SecretStr | None = Field(None, validation_alias="LABEL_STUDIO_API_KEY")

    pseudonym_key: SecretStr | None = Field(None, validation_alias="HEADRACE_PSEUDONYM_KEY")
    """Secret that annotators' pseudonyms are made with; with another one the same people look new."""

    feast_registry_url: str | None = Field(None, validation_alias="FEAST_REGISTRY_URL")
    """SQLAlchemy address of Feast's registry; the shipped `.env.example` shows one."""

    feast_online_store_path: str | None = Field(None, validation_alias="FEAST_ONLINE_STORE_PATH")
    """SQLite file of the online store, relative to `feature_repo/` if not absolute."""


def load_settings(workspace: Path | None = None) -> Settings:
    """The settings of a workspace, by default the one that HEADRACE_WORKSPACE names or one stands in.

    What its files say goes into the environment of this process, where that says nothing: so the libraries that read
    it themselves (boto3, DVC, Feast) see the same.
    """
    root = workspace or Path(os.environ.get("HEADRACE_WORKSPACE", ""))
    load_env_files(root)
    return Settings(workspace=root)
