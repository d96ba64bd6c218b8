"""The graph for DVC: one stage per table in `dvc.yaml`, its entry in `dvc.lock`, a `.dvc` file per raw table.

`dvc repro` and Airflow run the same command for a stage. It depends on the manifests of the tables it reads, which
hold the hash of every partition, on the project's source files and data files that its fingerprint follows, and on its
entries in `headrace.lock`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import md5
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset
from headrace.engine.fingerprint import parameter, stage_code
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.project import engine_lock, graph
from headrace.project.engine_lock import EngineLock, lock_params
from headrace.project.loading import DatasetError, load_datasets
from headrace.storage.dvc.lock import read_lock
from headrace.storage.dvc.objects import md5_of
from headrace.storage.files import atomic_write, dump_yaml, load_yaml
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.table_store import TableStore

COMMAND = "headrace"
DATASET_PART = 2
"""Where the dataset stands in the path of a table."""

SUBCOMMANDS = {"label": "label aggregate"}
"""Stage kind → its command, if that is more than its name."""


@dataclass(frozen=True)
class DvcFiles:
    """`dvc.yaml` and `headrace.lock` as the datasets declare them.

    Attributes:
        stages: Stages in `dvc.yaml`.
        text: Content of `dvc.yaml`.
        lock: Content of `headrace.lock`.
        broken: Dataset → why it cannot be loaded; its stages are kept as they were.
    """

    stages: int
    text: dict[str, Any]
    lock: EngineLock
    broken: Mapping[str, DatasetError]


def stage_name(stage: Stage) -> str:
    """The stage's name in `dvc.yaml`."""
    return f"{stage.dataset}-{stage.verb}-{stage.name}"


def dvc_stage(stage: Stage, root: Path) -> dict[str, Any]:
    """The stage's entry in `dvc.yaml`."""
    code = stage_code(stage, root)
    manifests = (f"data/{table}/{HEAD_FILE}" for table in stage.reads)
    entry = {
        "cmd": f"{COMMAND} {SUBCOMMANDS.get(stage.verb, stage.verb)} {stage.dataset} --table {stage.name}",
        "deps": sorted((*manifests, *code.files)),
        "params": [*sorted(stage.params), {engine_lock.FILE: lock_params(code, stage.verb)}],
        "outs": sorted(f"data/{table}" for table in (stage.table, *stage.companion_tables)),
    }
    return {name: value for name, value in entry.items() if value}


def declared_files(root: Path, *, every: bool = False, also: Collection[str] = ()) -> DvcFiles:
    """`dvc.yaml` and `headrace.lock` as the datasets declare them; hand-written stages are kept.

    `dvc pull` fails over a stage that `dvc.lock` does not have. So a stage is in `dvc.yaml` once `dvc.lock` records it,
    which the first release with it does, or, with `every` or named in `also`, before: then `dvc repro` runs it, and
    records it too.
    """
    path = root / "dvc.yaml"
    written = load_yaml(path) if path.exists() else {}
    datasets, broken = load_datasets()
    stages = [stage for dataset in datasets for stage in graph.dataset_stages(dataset)]
    recorded = read_lock(root)["stages"]
    generated = {
        stage_name(stage): dvc_stage(stage, root)
        for stage in stages
        if every or stage_name(stage) in recorded or stage_name(stage) in also
    }
    earlier = EngineLock.read(root)
    lock = EngineLock.installed(stages, root).kept_by(earlier)
    if broken and earlier is not None:
        lock = lock.with_missing_entries(earlier, broken)  # the stages of broken datasets list them as parameters
    kept = replace_stages(
        written.get("stages") or {},
        generated,
        lambda entry: is_generated(entry) and stage_datasets(entry).isdisjoint(broken),
    )
    content = {**written, "stages": kept}
    return DvcFiles(len(content["stages"]), content, lock, broken)


def is_generated(entry: Mapping[str, Any]) -> bool:
    """Whether a stage of `dvc.yaml` or `dvc.lock` comes from a declaration; the others are written by hand."""
    return str(entry.get("cmd", "")).startswith((f"{COMMAND} ", f"python -m {COMMAND} ", "python -m pipelines "))


def check_dvc_files(root: Path) -> DvcFiles:
    """Compare `dvc.yaml` and `headrace.lock` with the declarations.

    Raises:
        HeadraceError: They differ.
    """
    written, lock = load_yaml(root / "dvc.yaml"), EngineLock.read(root)
    # `headrace dvc-sync --all` and 0.2.0 write stages that no lock records.
    declared = declared_files(root, also=written.get("stages") or ())
    # 0.2.0 listed no tables. Airflow then reads them from `dvc.yaml`, so there is nothing to do after an upgrade.
    wanted_lock = replace(declared.lock, tables={}) if lock and not lock.tables else declared.lock
    differing = [
        name
        for name, found, wanted in (
            ("dvc.yaml", written, declared.text),
            (engine_lock.FILE, lock, wanted_lock),
        )
        if found != wanted
    ]
    if differing:
        raise HeadraceError(
            f"{root}: {' and '.join(differing)} {'is' if len(differing) == 1 else 'are'} not what the datasets declare"
            " and this environment has installed. Run `headrace dvc-sync` and commit."
        )
    return declared


def write_dvc_files(root: Path, *, every: bool = False) -> DvcFiles:
    """Write `dvc.yaml` and `headrace.lock`; `every` stage, or those that `dvc.lock` records."""
    declared = declared_files(root, every=every)
    atomic_write(root / "dvc.yaml", dump_yaml(declared.text))
    declared.lock.write(root)
    return declared


def lock_entries(
    stages: Iterable[Stage], table_store: TableStore, outs: Mapping[str, dict[str, Any]], heads: Mapping[str, bytes]
) -> dict[str, dict[str, Any]]:
    """Stage → its entry in `dvc.lock`, as `dvc commit` would write it.

    Args:
        stages: The stages.
        table_store: Their tables.
        outs: Path → output entry.
        heads: Path → bytes of manifests that are recorded otherwise than the workspace has them.
    """
    dep = cache(partial(_dep, table_store, heads))  # a file that many stages read is hashed once
    lock = EngineLock.read(table_store.root) or EngineLock.installed(stages := list(stages), table_store.root)
    return {stage_name(stage): _lock_entry(stage, table_store, dep, outs, lock) for stage in stages}


def _lock_entry(
    stage: Stage,
    table_store: TableStore,
    dep: Callable[[str], dict[str, Any]],
    outs: Mapping[str, dict[str, Any]],
    lock: EngineLock,
) -> dict[str, Any]:
    declared = dvc_stage(stage, table_store.root)
    *_, engine = declared["params"]
    # DVC writes the parameters of its default file first.
    own = {name: parameter(table_store.root, name) for name in sorted(stage.params)}
    params: dict[str, Any] = {"params.yaml": own} if own else {}
    params[engine_lock.FILE] = engine_lock.param_values(lock, engine[engine_lock.FILE])
    return {
        "cmd": declared["cmd"],
        "deps": [{**dep(path)} for path in declared["deps"]],
        "params": params,
        "outs": [outs[path] for path in declared["outs"]],
    }


def _dep(table_store: TableStore, heads: Mapping[str, bytes], path: str) -> dict[str, Any]:
    if path in heads:
        content = heads[path]
        return {
            "path": path,
            "hash": "md5",
            "md5": md5(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
        }
    file = table_store.root / path
    return {"path": path, "hash": "md5", "md5": md5_of(file), "size": file.stat().st_size}


def kept_in_git(stages: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Metrics, plots and other outputs of these stages of `dvc.yaml` that git keeps instead of DVC (`cache: false`)."""
    outs = (out for stage in stages.values() for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ()))
    return {path for out in outs if isinstance(out, dict) for path, how in out.items() if how.get("cache") is False}


def stage_datasets(entry: Mapping[str, Any]) -> set[str]:
    """The datasets of the tables that a stage of `dvc.yaml` or `dvc.lock` writes, or else of those that it reads."""
    return _table_datasets(entry.get("outs", ())) or _table_datasets(entry.get("deps", ()))


def _table_datasets(items: Iterable[Any]) -> set[str]:
    """Of `data/<state>/<dataset>/<name>`, which `dvc.yaml` has as text or key, and `dvc.lock` as a field."""
    paths = (item if isinstance(item, str) else item.get("path") or next(iter(item)) for item in items)
    parts = (str(path).split("/") for path in paths)
    return {part[2] for part in parts if part[0] == "data" and len(part) > DATASET_PART}


def replace_stages(
    stages: Mapping[str, dict[str, Any]],
    wanted: Mapping[str, dict[str, Any]],
    is_replaced: Callable[[dict[str, Any]], bool],
) -> dict[str, dict[str, Any]]:
    """`stages` with `wanted` instead of those that are replaced: each in its place, new ones at the end."""
    kept = {name: entry for name, entry in stages.items() if name in wanted or not is_replaced(entry)}
    return {**kept, **wanted}


def tracked_by_stage(dataset: Dataset) -> set[str]:
    """Tables that stages compute; every other table of the dataset has a `.dvc` file."""
    return {table for stage in graph.dataset_stages(dataset) for table in (stage.table, *stage.companion_tables)}
