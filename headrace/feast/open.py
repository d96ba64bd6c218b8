"""Feast's `FeatureStore` of a workspace, opened with the settings of this run."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from feast import FeatureStore, RepoConfig
from pydantic import ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from headrace import failpoints
from headrace.errors import NotConfiguredError
from headrace.extras import require_extra
from headrace.feast.online_stores.sql_store import TableOnlineStore
from headrace.feast.online_stores.sqlite import HeadraceSQLiteOnlineStoreConfig
from headrace.retrieve.errors import FeatureStoreError, FeatureStoreUnavailableError
from headrace.settings import Settings
from headrace.storage.sql_errors import is_transient_sql_error

VARIABLE = re.compile(r"\$\{(\w+)\}")


def open_store(repo: Path, settings: Settings) -> FeatureStore:
    """The feature store that `feature_store.yaml` in `repo` describes.

    It is what `FeatureStore(repo_path=...)` gives where the environment holds every variable; Feast itself leaves an
    unset one standing as `${NAME}` and fails on it later, elsewhere.

    Raises:
        NotConfiguredError: A variable is unset, or the configuration is not valid.
        FeatureStoreUnavailableError: The registry does not answer.
        FeatureStoreError: The registry refuses.
    """
    path = repo / "feature_store.yaml"
    config = _config(path, _filled(path, settings))
    config.repo_path = repo.resolve()
    _make_folders(config)
    store = FeatureStore(config=config)
    try:
        with failpoints.failpoint("tables of Feast's registry"):
            store.registry  # noqa: B018  Feast connects when it is first asked for, and makes what is not there
    except (SQLAlchemyError, OSError) as error:
        where = make_url(config.registry.path).render_as_string(hide_password=True)
        transient = is_transient_sql_error(error)
        raise (FeatureStoreUnavailableError if transient else FeatureStoreError)(
            f"Feast's registry at {where} {'does not answer' if transient else 'refuses'}:"
            f" {str(error).splitlines()[0]}. `headrace stack status` shows whether it runs; FEAST_REGISTRY_URL is its"
            " address. Then run the command again."
        ) from error
    return store


def close_store(store: FeatureStore) -> None:
    """Close what the store keeps open until the process ends: connections to the registry and to the online store."""
    for name in ("write_engine", "read_engine"):
        engine = getattr(store.registry, name, None)
        if engine is not None:
            engine.dispose()
    online = store.provider.online_store
    if isinstance(online, TableOnlineStore):
        online.disconnect()


@contextmanager
def feature_store(repo: Path, settings: Settings) -> Iterator[FeatureStore]:
    """The feature store of `open_store`, until the block ends."""
    store = open_store(repo, settings)
    try:
        yield store
    finally:
        close_store(store)


@contextmanager
def written_only(store: FeatureStore) -> Iterator[Any]:
    """The registry, to write several objects: Feast would read all that is registered anew after each."""
    registry: Any = store.registry
    mode, registry.cache_mode = registry.cache_mode, ""
    try:
        yield registry
    finally:
        registry.cache_mode = mode


def _filled(path: Path, settings: Settings) -> str:
    if not path.exists():
        raise NotConfiguredError(f"Expected Feast's configuration in {path}, found no such file.")
    values = {
        "FEAST_REGISTRY_URL": settings.feast_registry_url,
        "FEAST_ONLINE_STORE_PATH": settings.feast_online_store_path,
        **os.environ,
    }
    text = re.sub(r"(^|\s)#.*", r"\1", path.read_text(), flags=re.MULTILINE)
    unset = sorted({name for name in VARIABLE.findall(text) if not values.get(name)})
    if unset:
        raise NotConfiguredError(
            f"{path}: {' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set. `headrace stack up` sets"
            " them for the local stack. Elsewhere set them in .env (see .env.example) or in the environment."
        )
    return VARIABLE.sub(lambda match: str(values[match[1]]), text)


def _config(path: Path, text: str) -> Any:  # noqa: ANN401  Feast has no types
    try:
        written = yaml.safe_load(text)
        _require_drivers(path, written)
        config = RepoConfig(**written)
        make_url(config.registry.path)
    except (ValidationError, yaml.YAMLError, TypeError, KeyError) as error:
        raise NotConfiguredError(f"{path} is not a valid configuration of Feast: {error}") from error
    except (SQLAlchemyError, ValueError) as error:  # a port that is no number is a ValueError
        raise NotConfiguredError(
            f"{path}: FEAST_REGISTRY_URL is not an SQLAlchemy address, such as sqlite:////path/registry.db or"
            " postgresql+psycopg://user:password@host/feast."
        ) from error
    return config


def _require_drivers(path: Path, written: Mapping[str, Any]) -> None:
    """Feast would report a missing driver as a class that cannot be imported."""
    kind = str(written["online_store"]["type"])
    for extra, name in (("redis", "redis"), ("postgres", "postgres")):
        if f".{name}" in kind:
            require_extra(extra, f"{path}: the online store {kind.rpartition('.')[2]}")
    if str(written["registry"]["path"]).startswith("postgresql"):
        require_extra("postgres", f"{path}: a registry in PostgreSQL")


def _make_folders(config: Any) -> None:  # noqa: ANN401
    """SQLite makes its file, but no folder."""
    registry = make_url(config.registry.path)
    if registry.get_backend_name() == "sqlite" and registry.database:
        Path(registry.database).parent.mkdir(parents=True, exist_ok=True)
    if isinstance(config.online_store, HeadraceSQLiteOnlineStoreConfig):
        (config.repo_path / config.online_store.path).parent.mkdir(parents=True, exist_ok=True)
