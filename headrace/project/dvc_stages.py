"""The graph for DVC: one stage per table in `dvc.yaml`, its entry in `dvc.lock`, a `.dvc` file per raw table.

`dvc repro` and Airflow run the same command for a stage. It depends on the manifests of the tables it reads, which
hold the hash of every partition, on the project's source files and data files that its fingerprint follows, and on its
entries in `headrace.lock`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from headrace.dataset import Dataset
from headrace.engine.fingerprint import parameter, stage_code
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.project import engine_lock, graph
from headrace.project.engine_lock import EngineLock, lock_params
from headrace.project.loading import DatasetError, load_datasets
from headrace.storage.dvc.objects import md5_of
from headrace.storage.files import atomic_write, dump_yaml, load_yaml
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.table_store import Lake

COMMAND = "headrace"
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


def declared_files(root: Path) -> DvcFiles:
    """`dvc.yaml` and `headrace.lock` as the datasets declare them; hand-written stages are kept."""
    path = root / "dvc.yaml"
    written = load_yaml(path) if path.exists() else {}
    datasets, broken = load_datasets()
    stages = [stage for dataset in datasets for stage in graph.dataset_stages(dataset)]
    generated = {stage_name(stage): dvc_stage(stage, root) for stage in stages}
    kept = {
        name: entry
        for name, entry in (written.get("stages") or {}).items()
        if not _is_generated(entry) or name.partition("-")[0] in broken
    }
    earlier = EngineLock.read(root)
    lock = EngineLock.installed(stages, root).kept_by(earlier)
    if broken and earlier is not None:
        lock = lock.with_missing_entries(earlier)  # the stages kept above list them as parameters
    content = {**written, "stages": {**generated, **kept}}
    return DvcFiles(len(content["stages"]), content, lock, broken)


def _is_generated(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("cmd", "")).startswith((f"{COMMAND} ", f"python -m {COMMAND} ", "python -m pipelines "))


def check_dvc_files(root: Path) -> DvcFiles:
    """Compare `dvc.yaml` and `headrace.lock` with the declarations.

    Raises:
        HeadraceError: They differ.
    """
    declared = declared_files(root)
    differing = [
        name
        for name, found, wanted in (
            ("dvc.yaml", load_yaml(root / "dvc.yaml"), declared.text),
            (engine_lock.FILE, EngineLock.read(root), declared.lock),
        )
        if found != wanted
    ]
    if differing:
        raise HeadraceError(
            f"{root}: {' and '.join(differing)} {'is' if len(differing) == 1 else 'are'} not what the datasets declare"
            " and this environment has installed. Run `headrace dvc-sync` and commit."
        )
    return declared


def write_dvc_files(root: Path) -> DvcFiles:
    """Write `dvc.yaml` and `headrace.lock`."""
    declared = declared_files(root)
    atomic_write(root / "dvc.yaml", dump_yaml(declared.text))
    declared.lock.write(root)
    return declared


def lock_entries(stages: Iterable[Stage], lake: Lake, outs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Stage → its entry in `dvc.lock`, as `dvc commit` would write it; `outs` maps paths to output entries."""
    dep = cache(partial(_dep, lake))  # a file that many stages read is hashed once
    lock = EngineLock.read(lake.root) or EngineLock.installed(stages := list(stages), lake.root)
    return {stage_name(stage): _lock_entry(stage, lake, dep, outs, lock) for stage in stages}


def _lock_entry(
    stage: Stage,
    lake: Lake,
    dep: Callable[[str], dict[str, Any]],
    outs: Mapping[str, dict[str, Any]],
    lock: EngineLock,
) -> dict[str, Any]:
    declared = dvc_stage(stage, lake.root)
    *_, engine = declared["params"]
    params: dict[str, Any] = {engine_lock.FILE: engine_lock.param_values(lock, engine[engine_lock.FILE])}
    if stage.params:
        params["params.yaml"] = {name: parameter(lake.root, name) for name in sorted(stage.params)}
    return {
        "cmd": declared["cmd"],
        "deps": [{**dep(path)} for path in declared["deps"]],
        "params": params,
        "outs": [outs[path] for path in declared["outs"]],
    }


def _dep(lake: Lake, path: str) -> dict[str, Any]:
    file = lake.root / path
    return {"path": path, "hash": "md5", "md5": md5_of(file), "size": file.stat().st_size}


def declared_stage_names(root: Path) -> set[str]:
    """Names of the stages in `dvc.yaml`."""
    return set(load_yaml(root / "dvc.yaml").get("stages") or {}) if (root / "dvc.yaml").exists() else set()


def kept_in_git(root: Path) -> set[str]:
    """Metrics, plots and other outputs that git keeps instead of DVC (`cache: false`)."""
    stages = (load_yaml(root / "dvc.yaml").get("stages") or {}).values() if (root / "dvc.yaml").exists() else ()
    outs = (out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ()))
    return {path for out in outs if isinstance(out, dict) for path, how in out.items() if how.get("cache") is False}


def tracked_by_stage(dataset: Dataset) -> set[str]:
    """Tables that stages compute; every other table of the dataset has a `.dvc` file."""
    return {table for stage in graph.dataset_stages(dataset) for table in (stage.table, *stage.companion_tables)}
