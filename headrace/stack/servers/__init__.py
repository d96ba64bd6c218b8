"""Every system of the stack, in the order it is shown."""

from collections.abc import Callable, Iterable, Mapping

from headrace.stack.errors import StackError
from headrace.stack.paths import Site
from headrace.stack.server import System
from headrace.stack.servers import airflow, dask, label_studio, postgres, s3, workspace

SYSTEMS: Mapping[str, Callable[[Site], System]] = {
    "s3": s3.system,
    "postgres": postgres.system,
    "label-studio": label_studio.system,
    "workspace": workspace.system,
    "dask": dask.system,
    "airflow": airflow.system,
}
PORTS: Mapping[str, tuple[str, ...]] = {
    "s3": ("s3",),
    "postgres": ("postgres",),
    "label-studio": ("label-studio",),
    "dask": ("dask", "dask-dashboard"),
    "airflow": ("airflow",),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "workspace": ("s3",),
    "dask": ("workspace",),
    "airflow": ("postgres", "workspace"),
}


def chosen(only: Iterable[str]) -> tuple[str, ...]:
    """The systems asked for and those they need, in order; all when none is named."""
    wanted = set(only) or set(SYSTEMS)
    if unknown := wanted - set(SYSTEMS):
        raise StackError(
            f"no system is called {', '.join(sorted(unknown))}. The stack knows: {', '.join(SYSTEMS)}.\n"
            "Next: `headrace stack up --only s3,postgres`."
        )
    while missing := {need for name in wanted for need in NEEDS.get(name, ())} - wanted:
        wanted |= missing
    return tuple(name for name in SYSTEMS if name in wanted)


def ports_of(names: Iterable[str]) -> tuple[str, ...]:
    """Names of the ports these systems listen on."""
    return tuple(port for name in names for port in PORTS.get(name, ()))


def describe(site: Site, names: Iterable[str]) -> tuple[System, ...]:
    """Each system as this home runs it."""
    return tuple(SYSTEMS[name](site) for name in names)


def exports(systems: Iterable[System]) -> dict[str, str]:
    """All that a pipeline must know to reach these systems."""
    return {key: value for system in systems for key, value in system.exports.items()}
