"""`headrace.lock` names the engine and the libraries that tables are computed with; under others, work stops.

An engine that computes the same results needs no new entry: tables stay up to date over an upgrade.
"""

import json
from collections.abc import Callable
from pathlib import Path

import minimal_dataset
import pytest
from workspaces import Workspace

from headrace.engine.result_versions import CHANGES, ResultChange, result_versions
from headrace.engine.run import plan_stage
from headrace.errors import HeadraceError
from headrace.project import dvc_stages, graph
from headrace.project.engine_lock import EngineLock, EngineMismatchError, check_environment
from headrace.release.release import create_release
from headrace.storage.files import dump_yaml, load_yaml
from headrace.storage.manifest import parse_manifest
from headrace.storage.manifest_entries import ChunkReference
from headrace.storage.partition_entry import PartitionEntry
from headrace.storage.table_store import TableStore

VALIDATED = "validated/tiny/sales"


def raise_version(
    monkeypatch: pytest.MonkeyPatch, kind: str, affects: Callable[[PartitionEntry], bool] | None = None
) -> None:
    """As if the engine's next version computed other results for a stage kind."""
    change = ResultChange(CHANGES[kind][-1].version + 1, "sums are exact", **({"affects": affects} if affects else {}))
    monkeypatch.setitem(CHANGES, kind, (*CHANGES[kind], change))


# The file


def test_dvc_sync_writes_result_versions_and_the_libraries_that_stage_code_imports(workspace: Workspace) -> None:
    (workspace.root / "headrace.lock").unlink()

    workspace.command("headrace", "dvc-sync")

    lock = load_yaml(workspace.root / "headrace.lock")
    assert lock["result_versions"] == result_versions()
    assert {"polars", "pyarrow", "pillow", "cleanlab"} <= lock["libraries"].keys()


def test_files_that_list_no_tables_or_every_stage_pass_the_check(workspace: Workspace) -> None:
    """So 0.2.0 wrote them, and `headrace dvc-sync --all` writes every stage: an upgrade leaves nothing to do."""
    before = load_yaml(workspace.root / "dvc.yaml")["stages"]

    workspace.command("headrace", "dvc-sync", "--all")
    lock = load_yaml(workspace.root / "headrace.lock")
    (workspace.root / "headrace.lock").write_bytes(dump_yaml({**lock, "tables": {}}))

    assert len(load_yaml(workspace.root / "dvc.yaml")["stages"]) > len(before)
    workspace.command("headrace", "dvc-sync", "--check")
    workspace.command("headrace", "dvc-sync")
    assert load_yaml(workspace.root / "dvc.yaml")["stages"] == before
    assert load_yaml(workspace.root / "headrace.lock") == lock


def test_every_generated_stage_depends_on_its_entries_of_the_lock(workspace: Workspace) -> None:
    stages = load_yaml(workspace.root / "dvc.yaml")["stages"]

    for name, stage in stages.items():
        (lock,) = [item["headrace.lock"] for item in stage["params"] if isinstance(item, dict)]
        kind = name.split("-")[1] if name != "flights-train" else "retrieve"
        assert f"result_versions.{kind}" in lock


def test_a_stage_depends_on_a_library_that_only_its_own_code_imports(workspace: Workspace) -> None:
    stages = dvc_stages.declared_files(workspace.root, every=True).text["stages"]

    users = [name for name, stage in stages.items() if "libraries.pillow" in json.dumps(stage["params"])]

    assert users == ["digits-validate-images"]


def test_no_engine_file_is_a_dependency_of_any_stage(workspace: Workspace) -> None:
    stages = load_yaml(workspace.root / "dvc.yaml")["stages"]

    assert not [dep for stage in stages.values() for dep in stage["deps"] if dep.startswith("headrace/")]


@pytest.mark.parametrize("text", ["", "engine: [", "engine: 1\nlibraries: {}\n", "<<<<<<< HEAD\nengine: 1\n"])
def test_a_damaged_lock_is_named_with_the_command_that_restores_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "headrace.lock").write_text(text)

    with pytest.raises(HeadraceError, match=r"headrace\.lock (cannot be parsed|lacks).*git checkout -- headrace\.lock"):
        EngineLock.read(tmp_path)


# Another environment


@pytest.mark.parametrize(
    "command",
    [
        "ingest flights",
        "validate flights",
        "transform flights",
        "run flights",
        "release flights",
        "label collect flights",
        "label aggregate flights",
        "label accept flights",
    ],
)
def test_a_library_of_another_version_stops_what_writes_with_the_command_that_installs_the_right_one(
    workspace: Workspace, command: str
) -> None:
    polars = load_yaml(workspace.root / "headrace.lock")["libraries"]["polars"]
    workspace.edit("headrace.lock", f"polars: {polars}", "polars: 1.36.0")

    said = workspace.command("headrace", *command.split(), fails=True)

    assert f"polars 1.36.0 expected, {polars} found" in said
    assert "pip install 'polars==1.36.0'" in said
    assert not list(workspace.table_store.tables("flights"))


def test_a_library_that_is_not_installed_stops_a_run(workspace: Workspace) -> None:
    workspace.edit("headrace.lock", "libraries:\n", "libraries:\n  no-such-library: 1.0.0\n")

    with pytest.raises(EngineMismatchError, match=r"no-such-library 1\.0\.0 expected, none found"):
        check_environment(workspace.root)


def test_an_engine_that_computes_other_results_stops_a_run_a_release_and_names_the_engine_to_install(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_version(monkeypatch, "transform")
    words = r"result version 2 of transform expected, headrace \S+ has 3.*pip install 'headrace==0\.2\.0'"

    with pytest.raises(EngineMismatchError, match=words):
        released.refresh()
    with pytest.raises(EngineMismatchError, match=words):
        create_release(released.dataset, released.table_store)


def test_an_engine_that_computes_the_same_leaves_plan_and_lock_as_they_are(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.__version__", "0.2.9")

    files = dvc_stages.check_dvc_files(released.root)

    assert files.lock.engine == "0.2.0"
    assert all(plan_stage(stage, released.table_store).is_empty for stage in graph.dataset_stages(released.dataset))


def test_dvc_sync_under_another_engine_accepts_it_and_dvc_and_plan_see_the_same_change(
    released: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_version(monkeypatch, "transform")
    monkeypatch.setattr("headrace.__version__", "0.3.0")

    dvc_stages.write_dvc_files(released.root)

    lock = EngineLock.read(released.root)
    assert lock is not None
    assert (lock.engine, lock.result_versions) == ("0.3.0", result_versions())
    planned = {
        dvc_stages.stage_name(stage)
        for stage in graph.dataset_stages(released.dataset)
        if not plan_stage(stage, released.table_store).is_empty
    }
    changed = {name for name, how in released.stale_stages().items() if "headrace.lock" in json.dumps(how)}
    assert changed == planned == {name for name in released.stages() if "-transform-" in name}


# What a result version invalidates


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """The small dataset, computed."""
    made = minimal_dataset.create_table_store(tmp_path)
    minimal_dataset.write_raw_partitions(
        made, {**minimal_dataset.raw_days(1, 3), "2026-01-02": minimal_dataset.raw_day(2, amount=7)}
    )
    minimal_dataset.run_all_stages(made)
    return made


def test_a_raised_result_version_makes_every_partition_stale_and_says_why(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_version(monkeypatch, "validate")
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]

    found = plan_stage(stage, table_store)

    assert {item.reasons for item in found.stale} == {("engine changed: sums are exact",)}
    assert len(found.stale) == 3


def test_a_change_that_affects_some_partitions_leaves_the_others_carried_over_also_in_the_next_run(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]
    before = table_store.manifest(VALIDATED)
    touched = before.partitions["2026-01-02"].md5
    raise_version(monkeypatch, "validate", lambda entry: entry.md5 == touched)

    assert [item.partition for item in plan_stage(stage, table_store).stale] == ["2026-01-02"]
    minimal_dataset.run_all_stages(table_store)

    after = table_store.manifest(VALIDATED)
    assert plan_stage(stage, table_store).is_empty
    assert [name for name in before.md5s if after.entries.line(name) != before.entries.line(name)] == ["2026-01-02"]


def test_an_unaffected_partition_is_computed_again_once_its_inputs_change(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    raise_version(monkeypatch, "validate", lambda _entry: False)
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]
    assert plan_stage(stage, table_store).is_empty

    minimal_dataset.write_raw_partitions(table_store, {"2026-01-03": minimal_dataset.raw_day(3, amount=9)})

    assert [item.partition for item in plan_stage(stage, table_store).stale] == ["2026-01-03"]


def test_a_change_two_versions_back_still_counts(table_store: TableStore, monkeypatch: pytest.MonkeyPatch) -> None:
    last = CHANGES["validate"][-1].version
    first = ResultChange(last + 1, "first")
    second = ResultChange(last + 2, "second", affects=lambda _entry: False)
    monkeypatch.setitem(CHANGES, "validate", (*CHANGES["validate"], first, second))
    stage = graph.dataset_stages(minimal_dataset.DATASET)[0]

    assert len(plan_stage(stage, table_store).stale) == 3


def test_a_manifest_written_before_there_were_result_versions_is_read(table_store: TableStore) -> None:
    lines = (entry_of_format_1(name, entry) for name, entry in table_store.manifest(VALIDATED).partitions.items())
    head = '{"table":"t","suffix":".parquet","code":{},"params":{},"libraries":{},"partitions":'

    found = parse_manifest(f"{head}{{{','.join(lines)}}}}}".encode(), no_chunks)

    assert (found.result_version, found.rows) == (0, 6)


def entry_of_format_1(name: str, entry: PartitionEntry) -> str:
    return f'"{name}":{{"rows":{entry.rows},"size":{entry.size},"md5":"{entry.md5}","memo":"{entry.cache_key}"}}'


def no_chunks(reference: ChunkReference) -> bytes:
    raise AssertionError(reference)
