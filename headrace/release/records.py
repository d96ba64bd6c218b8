"""What git records of tables: stages in `dvc.yaml` and `dvc.lock`, `.dvc` files, metrics that git keeps.

One `dvc.lock` holds the stages of all datasets, and a release replaces those of its own. A `dvc.yaml` and a lock for
each dataset, in `pipelines/<dataset>/`, were tried with DVC 3: a release would replace whole files. But `dvc repro`
without arguments runs the stages of `./dvc.yaml` and what they read, so it would leave out datasets without a message;
stages would be called `pipelines/flights/dvc.yaml:validate`; older releases would have to be read from another place;
and `dvc pull` fails over a stage that no lock has all the same.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.dataset import Dataset
from headrace.project import dvc_stages, graph
from headrace.project.dvc_stages import is_generated, replace_stages, stage_datasets
from headrace.storage import git
from headrace.storage.dvc.lock import pointer_file
from headrace.storage.files import dump_yaml, parse_yaml
from headrace.storage.manifest import HEAD_FILE
from headrace.storage.table_store import TableStore

LOCK, STAGES = "dvc.lock", "dvc.yaml"


@dataclass(frozen=True)
class Records:
    """What a commit or the workspace records of the tables of all datasets.

    Attributes:
        stages: Content of `dvc.yaml`.
        lock: Content of `dvc.lock`.
        files: Path → content of the `.dvc` files and of the metrics that git keeps.
    """

    stages: Mapping[str, Any]
    lock: Mapping[str, Any]
    files: Mapping[str, bytes]

    @classmethod
    def at_commit(cls, root: Path, commit: str) -> "Records":
        """What `commit` records."""
        blobs = git.tree(root, commit, STAGES, LOCK, "data")
        records = _parse_records(root, tuple(sorted(blobs.items())))
        metrics = sorted(dvc_stages.kept_in_git(records.declared))
        files = _read_blobs(root, git.tree(root, commit, *metrics)) if metrics else {}
        return replace(records, files={**records.files, **files})

    @classmethod
    def in_workspace(cls, root: Path) -> "Records":
        """What the files of the workspace record."""

        def read(paths: Iterable[str]) -> dict[str, bytes]:
            return {path: (root / path).read_bytes() for path in paths if (root / path).is_file()}

        pointers = [path.relative_to(root).as_posix() for path in sorted((root / "data").glob("*/*/*.dvc"))]
        records = cls.parse(read([STAGES, LOCK, *pointers]))
        return replace(records, files={**records.files, **read(dvc_stages.kept_in_git(records.declared))})

    @classmethod
    def parse(cls, content: Mapping[str, bytes]) -> "Records":
        """What these files record: `dvc.yaml`, `dvc.lock` and `.dvc` files."""
        lock = {"schema": "2.0", "stages": {}, **parse_yaml(content.get(LOCK, b""))}
        pointers = {path: text for path, text in content.items() if path.endswith(".dvc")}
        return cls(parse_yaml(content.get(STAGES, b"")), lock, pointers)

    @property
    def declared(self) -> dict[str, dict[str, Any]]:
        """Stage → entry of `dvc.yaml`."""
        return dict(self.stages.get("stages") or {})

    @property
    def locked(self) -> dict[str, dict[str, Any]]:
        """Stage → entry of `dvc.lock`."""
        return dict(self.lock["stages"] or {})

    def input_tables(self, dataset: str) -> dict[str, str]:
        """Table → md5 of the dataset's tables that no stage computes: raw tables and histories of annotations."""
        return {
            path.removeprefix("data/").removesuffix(".dvc"): _pointer_md5(text)
            for path, text in self.files.items()
            if _is_pointer(path, dataset)
        }

    def hand_written(self, dataset: str) -> dict[str, Any]:
        """What hand-written stages that read the dataset have recorded: stage → entry, path of a metric → content."""
        names = {name for name, entry in self.declared.items() if _is_hand_written(entry, dataset)}
        locked = {name: entry for name, entry in self.locked.items() if name in names}
        metrics = dvc_stages.kept_in_git({name: self.declared[name] for name in names})
        return {**locked, **{path: text for path, text in self.files.items() if path in metrics}}

    def with_stages_of(self, earlier: "Records") -> "Records":
        """These, with the generated stages, the lock and the files that `earlier` records; hand-written stages stay."""
        generated = {name: entry for name, entry in earlier.declared.items() if is_generated(entry)}
        stages = {**self.stages, "stages": replace_stages(self.declared, generated, is_generated)}
        return replace(self, stages=stages, lock=earlier.lock, files={**self.files, **earlier.files})

    def without(self, datasets: Collection[str]) -> "Records":
        """These, less the generated stages, the locks and the `.dvc` files of some datasets."""
        if not datasets:
            return self

        def is_of(entry: dict[str, Any]) -> bool:
            return is_generated(entry) and not stage_datasets(entry).isdisjoint(datasets)

        declared, locked = (replace_stages(stages, {}, is_of) for stages in (self.declared, self.locked))
        kept = {path: text for path, text in self.files.items() if not any(_is_pointer(path, one) for one in datasets)}
        return Records({**self.stages, "stages": declared}, {**self.lock, "stages": locked}, kept)

    def with_dataset(self, own: "DatasetRecords") -> "Records":
        """These, with the records of one dataset instead of those that it had."""

        def is_replaced(entry: dict[str, Any]) -> bool:
            return is_generated(entry) and own.dataset in stage_datasets(entry)

        locked = replace_stages(self.locked, own.locked, is_replaced)
        by_hand = {name: entry for name, entry in own.hand_written.items() if name in self.declared}
        kept = {path: text for path, text in self.files.items() if not _is_pointer(path, own.dataset)}
        in_git = dvc_stages.kept_in_git(self.declared)
        metrics = {path: text for path, text in own.hand_written.items() if path in in_git}
        return Records(
            {**self.stages, "stages": replace_stages(self.declared, own.declared, is_replaced)},
            {**self.lock, "stages": {**locked, **by_hand}},
            {**kept, **own.pointers, **metrics},
        )

    def changed_files(self, before: "Records") -> dict[str, bytes | None]:
        """Path → content of the files that are other than `before`; None for those that are not there any more."""
        changed: dict[str, bytes | None] = {
            path: self.files.get(path)
            for path in sorted(self.files.keys() | before.files.keys())
            if self.files.get(path) != before.files.get(path)
        }
        if self.stages != before.stages:
            changed[STAGES] = dump_yaml(self.stages)
        if self.locked != before.locked:
            changed[LOCK] = dump_yaml(self.lock)
        return changed


@dataclass(frozen=True)
class DatasetRecords:
    """What a release records of its own dataset.

    Attributes:
        dataset: Name of the dataset.
        declared: Stage → entry of `dvc.yaml`.
        locked: Stage → entry of `dvc.lock`.
        pointers: Path → content of the `.dvc` files of tables that no stage computes.
        hand_written: What hand-written stages have recorded: stage → entry, path of a metric → content.
    """

    dataset: str
    declared: Mapping[str, dict[str, Any]]
    locked: Mapping[str, dict[str, Any]]
    pointers: Mapping[str, bytes]
    hand_written: Mapping[str, Any]

    @property
    def input_tables(self) -> dict[str, str]:
        """Table → md5 of the tables that no stage computes: raw tables and histories of annotations."""
        return Records({}, {}, self.pointers).input_tables(self.dataset)

    @classmethod
    def of_workspace(
        cls,
        dataset: Dataset,
        table_store: TableStore,
        outs: Mapping[str, dict[str, Any]],
        heads: Mapping[str, bytes] = MappingProxyType({}),
        earlier: Mapping[str, dict[str, Any]] = MappingProxyType({}),
    ) -> "DatasetRecords":
        """The records of the tables that were audited.

        Args:
            dataset: The dataset.
            table_store: Its tables.
            outs: Path → their output entries.
            heads: Path → bytes of the manifests that are recorded otherwise than the workspace has them.
            earlier: Stage → entry of `dvc.lock` in the last release, which stays for the stages of these manifests:
                their tables were not made with the code and parameters of today.
        """
        stages = graph.dataset_stages(dataset)
        computed = dvc_stages.tracked_by_stage(dataset)
        held = {dvc_stages.stage_name(stage) for stage in stages if f"data/{stage.table}/{HEAD_FILE}" in heads}
        kept = {name: entry for name, entry in earlier.items() if name in held}
        return cls(
            dataset.name,
            {dvc_stages.stage_name(stage): dvc_stages.dvc_stage(stage, table_store.root) for stage in stages},
            {**dvc_stages.lock_entries(stages, table_store, outs, heads), **kept},
            dict(pointer_file(out) for path, out in outs.items() if path.removeprefix("data/") not in computed),
            Records.in_workspace(table_store.root).hand_written(dataset.name),
        )


@lru_cache(maxsize=4)
def _parse_records(root: Path, blobs: tuple[tuple[str, str], ...]) -> Records:
    """Parsed once, however many commits have the same files."""
    record_files = {path: blob for path, blob in blobs if path in (STAGES, LOCK) or path.endswith(".dvc")}
    return Records.parse(_read_blobs(root, record_files))


def contains_changes(records: Records, before: Records, here: Records) -> Iterator[str]:
    """Paths of the files in the workspace (`here`) whose changes since `before` are all in `records`."""
    if _is_contained(here.locked, before.locked, records.locked):
        yield LOCK
    if _is_contained(here.declared, before.declared, records.declared):
        yield STAGES
    for path, text in here.files.items():
        if path in records.files and path.endswith(".dvc") and _pointer_md5(text) == _pointer_md5(records.files[path]):
            yield path


def _is_contained(here: Mapping[str, Any], before: Mapping[str, Any], records: Mapping[str, Any]) -> bool:
    return all(entry in (before.get(name), records.get(name)) for name, entry in here.items())


def _is_pointer(path: str, dataset: str) -> bool:
    parts = path.split("/")
    return path.endswith(".dvc") and parts[0] == "data" and parts[dvc_stages.DATASET_PART] == dataset


def _is_hand_written(entry: Mapping[str, Any], dataset: str) -> bool:
    return not is_generated(entry) and dataset in stage_datasets(entry)


def _pointer_md5(text: bytes) -> str:
    return str(parse_yaml(text)["outs"][0]["md5"])


def _read_blobs(root: Path, blobs: Mapping[str, str]) -> dict[str, bytes]:
    content = dict(git.blobs(root, blobs.values()))
    return {path: content[blob] for path, blob in blobs.items()}
