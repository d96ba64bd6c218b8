"""The graph as DVC sees it: one stage a table in `dvc.yaml`, its entry in `dvc.lock`, a `.dvc` file for raw tables.

`dvc repro` and Airflow run the same command for a stage. Its dependencies are the manifests of the tables it reads,
which hold the hash of every partition, and the source files that its code fingerprint follows.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from pipelines import graph
from pipelines.dataset import Dataset
from pipelines.datasets import NAMES, load
from pipelines.engine.code import closure
from pipelines.engine.lake import Lake
from pipelines.engine.manifest import MANIFEST
from pipelines.engine.recipe import param
from pipelines.engine.stage import Stage
from pipelines.errors import HeadraceError
from pipelines.systems.dvc.files import dump_yaml, load_yaml, write_whole
from pipelines.systems.dvc.objects import md5_of

COMMAND = "python -m pipelines"
WORDS = {"label": "label aggregate"}
"""What one types for a verb, where that is more than the verb."""


def stage_name(stage: Stage) -> str:
    """The stage's name in `dvc.yaml`."""
    return f"{stage.dataset}-{stage.verb}-{stage.name}"


def dvc_stage(stage: Stage, root: Path) -> dict[str, Any]:
    """The stage's entry in `dvc.yaml`."""
    manifests = (f"data/{table}/{MANIFEST}" for table in stage.reads)
    entry = {
        "cmd": f"{COMMAND} {WORDS.get(stage.verb, stage.verb)} {stage.dataset} --table {stage.name}",
        "deps": sorted((*manifests, *closure(stage.modules, root))),
        "params": sorted(stage.params),
        "outs": sorted(f"data/{table}" for table in (stage.table, *stage.beside)),
    }
    return {name: value for name, value in entry.items() if value}


def dvc_yaml(root: Path) -> dict[str, Any]:
    """`dvc.yaml` of the workspace: every dataset's stages, and those that people wrote by hand as they are."""
    written = load_yaml(root / "dvc.yaml") if (root / "dvc.yaml").exists() else {}
    kept = {
        name: entry for name, entry in written.get("stages", {}).items() if not str(entry["cmd"]).startswith(COMMAND)
    }
    made = {stage_name(stage): dvc_stage(stage, root) for name in NAMES for stage in graph.stages(load(name))}
    return {**written, "stages": {**made, **kept}}


def check(root: Path) -> int:
    """Stages of `dvc.yaml`.

    Raises:
        HeadraceError: It is not what the datasets declare.
    """
    wanted = dvc_yaml(root)
    if load_yaml(root / "dvc.yaml") != wanted:
        raise HeadraceError(
            f"{root / 'dvc.yaml'} is not what the datasets declare. Run `headrace stages --write` and commit it."
        )
    return len(wanted["stages"])


def write(root: Path) -> int:
    """Write what the datasets declare to `dvc.yaml`; returns its stages."""
    wanted = dvc_yaml(root)
    write_whole(root / "dvc.yaml", dump_yaml(wanted))
    return len(wanted["stages"])


def lock_entries(stages: Iterable[Stage], lake: Lake, outs: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Stage → its entry in `dvc.lock`, as `dvc commit` would write it; `outs` maps paths to output entries."""
    dep = cache(partial(_dep, lake))  # what many stages read is hashed once
    return {stage_name(stage): _lock_entry(stage, lake, dep, outs) for stage in stages}


def _lock_entry(
    stage: Stage, lake: Lake, dep: Callable[[str], dict[str, Any]], outs: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    declared = dvc_stage(stage, lake.root)
    entry: dict[str, Any] = {"cmd": declared["cmd"], "deps": [{**dep(path)} for path in declared["deps"]]}
    if stage.params:
        entry["params"] = {"params.yaml": {name: param(lake.root, name) for name in sorted(stage.params)}}
    return {**entry, "outs": [outs[path] for path in declared["outs"]]}


def _dep(lake: Lake, path: str) -> dict[str, Any]:
    file = lake.root / path
    return {"path": path, "hash": "md5", "md5": md5_of(file), "size": file.stat().st_size}


def declared(root: Path) -> set[str]:
    """Names of the stages in `dvc.yaml`."""
    return set(load_yaml(root / "dvc.yaml").get("stages", {})) if (root / "dvc.yaml").exists() else set()


def kept_in_git(root: Path) -> set[str]:
    """Metrics, plots and other outputs that git keeps instead of DVC (`cache: false`)."""
    stages = load_yaml(root / "dvc.yaml").get("stages", {}).values() if (root / "dvc.yaml").exists() else ()
    outs = (out for stage in stages for kind in ("outs", "metrics", "plots") for out in stage.get(kind, ()))
    return {path for out in outs if isinstance(out, dict) for path, how in out.items() if how.get("cache") is False}


def tracked_by_stage(dataset: Dataset) -> set[str]:
    """Tables that stages make; every other table of the dataset has a `.dvc` file."""
    return {table for stage in graph.stages(dataset) for table in (stage.table, *stage.beside)}
