"""lost → made again: the same inputs give the same bytes, so what is nowhere is computed again, if its code is here."""

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.engine.compute import build
from headrace.engine.fingerprint import stage_fingerprint
from headrace.engine.plan import Stale, memo_key
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import Damage
from headrace.maintenance.references import WORKSPACE
from headrace.project import graph
from headrace.project.loading import dataset_names, load_dataset
from headrace.storage.manifest import MANIFEST, Entry
from headrace.storage.table_store import Lake


class LostError(HeadraceError):
    """Bytes that are nowhere and cannot be made again here."""


@dataclass(frozen=True)
class Origin:
    """The computation that made a lost object: in `holder`, `entry` is what `stage` made of `partition`."""

    holder: str
    stage: Stage
    partition: str
    entry: Entry


def make_again(lake: Lake, item: Damage) -> str:
    """Compute a lost object into the cache; says what was run.

    Raises:
        LostError: No stage makes it, other code made it, or its inputs are lost too. The message says what to do.
    """
    origins = list(_origins(lake, item))
    for origin in origins:
        fingerprint = stage_fingerprint(origin.stage, lake.root)
        if memo_key(fingerprint.key, origin.partition, origin.entry.inputs) == origin.entry.memo:
            wanted = Stale(origin.partition, origin.entry.memo, origin.entry.inputs, ("lost",))
            return _computed(origin, build(origin.stage, wanted, fingerprint, lake), item)
    if origins:
        raise LostError(
            f"{_lost(item)} {origins[0].stage.table} {origins[0].partition} was made by other code, parameters or"
            f" libraries than this clone has. In a clone at {origins[0].holder} with its locked environment,"
            " `headrace doctor --repair` computes it again."
        )
    raise LostError(f"{_lost(item)} {_advice(item)}")


def _computed(origin: Origin, made: Entry, item: Damage) -> str:
    seen = {part.md5 for part in (made, *made.beside.values())}
    if item.md5 not in seen:
        raise LostError(
            f"{_lost(item)} {origin.stage.table} {origin.partition} was computed again, but gave {', '.join(seen)}."
            " Its inputs may be damaged: `headrace doctor --repair --deep` hashes them too."
        )
    return f"computed again by {origin.stage.verb} {origin.stage.table} {origin.partition}"


def _origins(lake: Lake, item: Damage) -> Iterator[Origin]:
    """Every computation that made the object, by the manifests of the releases that hold it."""
    for place in item.places:
        _, state, dataset, name, *file = place.path.split("/") if place.path.count("/") >= 3 else [""] * 4  # noqa: PLR2004
        if not file or dataset not in dataset_names() or file[0] == MANIFEST:
            continue
        for stage in graph.dataset_stages(load_dataset(dataset)):
            if f"{state}/{dataset}/{name}" in (stage.table, *stage.beside):
                yield from _made_by(lake, stage, place.holder, item.md5)


def _made_by(lake: Lake, stage: Stage, holder: str, md5: str) -> Iterator[Origin]:
    found = lake.manifest(stage.table) if holder == WORKSPACE else lake.recorded(stage.table, holder)
    for partition, entry in found.partitions.items() if found else ():
        if md5 in {part.md5 for part in (entry, *entry.beside.values())}:
            yield Origin(holder, stage, partition, entry)


def _lost(item: Damage) -> str:
    return f"Lost: neither remote nor cache nor workspace has {item.md5}, held by {', '.join(item.holders)}."


def _advice(item: Damage) -> str:
    path = item.paths[0]
    parts = path.split("/")
    if parts[:2] == ["data", "raw"] and len(parts) == 5 and parts[4] != MANIFEST:  # noqa: PLR2004
        partition = parts[4].split(".")[0]
        return (
            f"{path} is raw: if its source still has it, `headrace ingest {parts[2]} --table {parts[3]} --partition"
            f" {partition} --full-refresh` reads it again; then `headrace doctor --repair`."
        )
    if parts[:2] == ["data", "annotations"]:
        return f"{path} comes from Label Studio: `headrace label collect {parts[2]}`, then `headrace doctor --repair`."
    if path.endswith(MANIFEST) or item.md5.endswith(".dir"):
        return (
            f"{path} says which files belong to a table: in a clone that still has it, `headrace doctor --repair`;"
            " else `headrace run` and `headrace release` make the table's next release."
        )
    return f"{path} is made by a stage of dvc.yaml: `dvc repro` there, then `headrace doctor --repair`."
