"""Recomputes a lost object: equal inputs give equal bytes, provided that this clone has the code that computed them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from headrace.engine.compute import compute_partition, with_input_files
from headrace.engine.fingerprint import stage_fingerprint
from headrace.engine.plan import StalePartition, partition_cache_key
from headrace.engine.stage import Stage
from headrace.errors import HeadraceError
from headrace.maintenance.integrity import ObjectDamage
from headrace.maintenance.references import WORKSPACE, ObjectReference
from headrace.project import graph
from headrace.project.loading import dataset_names, load_dataset
from headrace.storage.manifest import Manifest, is_manifest_file
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.partition_names import partition_of
from headrace.storage.table_store import TableStore


class ObjectLostError(HeadraceError):
    """An object is nowhere, and cannot be recomputed here."""


@dataclass(frozen=True)
class ObjectProvenance:
    """The computation of an object: `entry` is the output of `stage` for `partition`, recorded in `revision`.

    `commit` is that of the revision; None for the workspace.
    """

    revision: str
    commit: str | None
    stage: Stage
    partition: str
    entry: PartitionEntry


def recompute_object(table_store: TableStore, damage: ObjectDamage) -> str:
    """Compute a lost object into the cache; returns what was run.

    Raises:
        ObjectLostError: No stage computes it, other code computed it, or its inputs are lost, too. The message has the
            next command.
    """
    computations = list(_find_provenance(table_store, damage))
    for computation in computations:
        fingerprint = stage_fingerprint(computation.stage, table_store.root)
        entry = computation.entry
        # Only a computation with the recorded cache key can give the recorded bytes.
        if partition_cache_key(fingerprint.key, computation.partition, entry.inputs) == entry.cache_key:
            [stale] = with_input_files(
                [StalePartition(computation.partition, entry.cache_key, entry.inputs, ("lost",))],
                table_store,
                partial(_read_manifest, table_store, computation.commit),
            )
            return _check_recomputed(
                computation, compute_partition(computation.stage, stale, fingerprint, table_store), damage
            )
    if computations:
        first = computations[0]
        raise ObjectLostError(
            f"{_describe_loss(damage)} {first.stage.table} {first.partition} was computed by other code, parameters or"
            f" libraries than this clone has. In a clone at {first.revision} with its locked environment,"
            " `headrace doctor --repair` recomputes it."
        )
    raise ObjectLostError(f"{_describe_loss(damage)} {_advise(damage)}")


def _check_recomputed(computation: ObjectProvenance, entry: PartitionEntry, damage: ObjectDamage) -> str:
    stage, partition = computation.stage, computation.partition
    md5s = {file.md5 for file in entry.files}
    if damage.md5 not in md5s:
        raise ObjectLostError(
            f"{_describe_loss(damage)} {stage.table} {partition} was recomputed, but the result has other hashes:"
            f" {', '.join(sorted(md5s))}. Its inputs may be damaged: `headrace doctor --repair --deep` hashes them."
        )
    return f"recomputed by {stage.verb} {stage.table} {partition}"


def _find_provenance(table_store: TableStore, damage: ObjectDamage) -> Iterator[ObjectProvenance]:
    """Every computation that wrote the object, from the manifests of the releases that reference it."""
    for reference in damage.references:
        parts = reference.path.split("/")  # data/<state>/<dataset>/<name>/<file>
        if len(parts) < 5 or parts[2] not in dataset_names() or _is_manifest(parts):  # noqa: PLR2004
            continue
        _, state, dataset, name, *_ = parts
        for stage in graph.dataset_stages(load_dataset(dataset)):
            if f"{state}/{dataset}/{name}" in (stage.table, *stage.companion_tables):
                yield from _find_entries(table_store, stage, reference, damage.md5)


def _find_entries(
    table_store: TableStore, stage: Stage, reference: ObjectReference, md5: str
) -> Iterator[ObjectProvenance]:
    commit = None if reference.revision == WORKSPACE else reference.commit
    for partition, entry in _read_manifest(table_store, commit, stage.table).partitions.items():
        if md5 in {file.md5 for file in entry.files}:
            yield ObjectProvenance(reference.revision, commit, stage, partition, entry)


def _read_manifest(table_store: TableStore, commit: str | None, table: str) -> Manifest:
    """The manifest of a table as a commit records it; None for the workspace."""
    recorded = table_store.recorded_manifest(table, commit) if commit else table_store.manifest(table)
    return recorded or Manifest(table)


def _is_manifest(parts: list[str]) -> bool:
    return is_manifest_file("/".join(parts[4:]))


def _describe_loss(damage: ObjectDamage) -> str:
    revisions = ", ".join(damage.referenced_by)
    return f"Lost: {damage.md5} is in neither the remote, the cache nor the workspace; it is referenced by {revisions}."


def _advise(damage: ObjectDamage) -> str:
    path = damage.paths[0]
    parts = path.split("/")
    if parts[:2] == ["data", "raw"] and len(parts) == 5 and not _is_manifest(parts):  # noqa: PLR2004
        partition = partition_of(parts[4].split(".")[0])
        return (
            f"{path} is raw data: if the source still has it, `headrace ingest {parts[2]} --table {parts[3]}"
            f" --partition {partition} --full-refresh` reads it again; then run `headrace doctor --repair`."
        )
    if parts[:2] == ["data", "annotations"]:
        return (
            f"{path} comes from Label Studio: run `headrace label collect {parts[2]}`, then `headrace doctor --repair`."
        )
    if _is_manifest(parts) or damage.md5.endswith(".dir"):
        return (
            f"{path} lists the files of a table. Run `headrace doctor --repair` in a clone that still has it. If there"
            " is none, withdraw the releases that reference it, newest first: `git revert --no-edit RELEASE`, `git"
            " push`, `git push --delete origin RELEASE`, `git tag --delete RELEASE`, and `headrace runs end` for runs."
            " Then `headrace run DATASET --release` computes the tables again."
        )
    return f"{path} is the output of a stage in dvc.yaml: run `dvc repro` there, then `headrace doctor --repair`."
