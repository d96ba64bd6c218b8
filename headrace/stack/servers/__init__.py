"""The systems of the stack, in the order in which they are shown."""

from collections.abc import Callable, Iterable, Mapping

from headrace.stack.config import StackConfig
from headrace.stack.errors import StackError
from headrace.stack.server import System
from headrace.stack.servers import airflow, dask, label_studio, postgres, s3, workspace

SYSTEMS: Mapping[str, Callable[[StackConfig], System]] = {
    "s3": s3.s3_system,
    "postgres": postgres.postgres_system,
    "label-studio": label_studio.label_studio_system,
    "workspace": workspace.workspace_system,
    "dask": dask.dask_system,
    "airflow": airflow.airflow_system,
    "s3-browser": s3.browser_system,
}
PORTS: Mapping[str, tuple[str, ...]] = {
    "s3": ("s3",),
    "postgres": ("postgres",),
    "label-studio": ("label-studio",),
    "dask": ("dask", "dask-dashboard"),
    "airflow": ("airflow",),
    "s3-browser": ("s3-browser",),
}
DEPENDS_ON: Mapping[str, tuple[str, ...]] = {
    "workspace": ("s3",),
    "dask": ("workspace",),
    "airflow": ("postgres", "workspace"),
    "s3-browser": ("s3",),
}


def select_systems(only: Iterable[str]) -> tuple[str, ...]:
    """The systems in `only` and those that they depend on, in order; all if it is empty.

    Raises:
        StackError: A name is unknown.
    """
    selected = set(only) or set(SYSTEMS)
    if unknown := selected - set(SYSTEMS):
        raise StackError(
            f"There is no system {', '.join(sorted(unknown))} in the stack. There are: {', '.join(SYSTEMS)}.\n"
            "Next: `headrace stack up --only s3,postgres`, for example."
        )
    while missing := {other for name in selected for other in DEPENDS_ON.get(name, ())} - selected:
        selected |= missing
    return tuple(name for name in SYSTEMS if name in selected)


def port_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the ports that these systems listen on."""
    return tuple(port for name in names for port in PORTS.get(name, ()))


def build_systems(config: StackConfig, names: Iterable[str]) -> tuple[System, ...]:
    """Each system as it runs in this home.

    Raises:
        StackError: A system lacks a program or the project.
    """
    return tuple(SYSTEMS[name](config) for name in names)


def collect_exports(systems: Iterable[System]) -> dict[str, str]:
    """All settings with which a pipeline reaches these systems."""
    return {key: value for system in systems for key, value in system.exports.items()}
