"""Variables of `feature_store.yaml`, for a process that nobody gave the environment of the workspace, like a notebook.

`FeatureStore(repo_path=...)` replaces each `${NAME}` that the environment has before it loads anything of ours. What it
left is replaced here, from the files of the workspace (`.env`, `.headrace/stack.env`), when Feast builds the
configuration of its registry and of the online store.
"""

import os
import re
from pathlib import Path
from typing import Any

from feast.infra.registry.sql import SqlRegistryConfig as FeastSqlRegistryConfig
from feast.repo_config import REGISTRY_CLASS_FOR_TYPE
from pydantic import field_validator, model_validator

from headrace.errors import NotConfiguredError
from headrace.workspace import ENV_FILES, VARIABLE, load_env_files, locate_workspace

UNSET = re.compile(r"\$\{(\w+)\}")
SQL = "sql"


class SqlRegistryConfig(FeastSqlRegistryConfig):
    """Feast's own, whose addresses may be variables of the workspace."""

    @field_validator("path", "read_path", mode="before")
    @classmethod
    def expand_variables(cls, address: object) -> object:
        """Replace the variables.

        Raises:
            NotConfiguredError: One is not set.
        """
        expanded = expand(address)
        if isinstance(expanded, str) and (unset := UNSET.search(expanded)):
            raise NotConfiguredError(
                f"feature_store.yaml: {unset[1]} is not set: expected it in the environment, or in"
                f" {' or '.join(ENV_FILES)} of the project, found {locate_workspace() or 'no project'} from"
                f" {Path.cwd()}. Change into the project or set {VARIABLE} to it; `headrace stack up` writes the"
                " settings of the local stack there."
            )
        return expanded


def expand(value: object) -> object:
    """A text with the variables of the workspace's files in place of `${NAME}`; unset ones stay."""
    if not isinstance(value, str) or not UNSET.search(value):
        return value
    if (root := locate_workspace()) is not None:
        load_env_files(root)
    return os.path.expandvars(value)


def _expand_all(options: Any) -> Any:  # noqa: ANN401  whatever was written
    return {name: expand(value) for name, value in options.items()} if isinstance(options, dict) else options


expand_options: Any = model_validator(mode="before")(_expand_all)
"""Validator of an `online_store`: replaces the variables in its options."""


def register() -> None:
    """Have Feast take the configuration above for an SQL registry; it has no other place for one of a project."""
    REGISTRY_CLASS_FOR_TYPE[SQL] = f"{__name__}.SqlRegistry"  # Feast appends `Config`
