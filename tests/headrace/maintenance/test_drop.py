"""A drop removes what nothing declares from the workspace and from further releases; earlier releases keep it."""

from dataclasses import replace

import minimal_dataset
import pytest
from minimal_dataset import FEATURES
from release_clones import QUESTION, Clone, Origin, dataset
from workspaces import git

from headrace.catalog.open import open_dataset
from headrace.dataset import Dataset
from headrace.guards.finding_log import open_finding_log
from headrace.guards.gate import FindingsError, accept_finding
from headrace.maintenance.drop import (
    DropResult,
    NotOnRecordError,
    StillDeclaredError,
    StillReadError,
    drop_tables,
    find_dataset,
    find_dropped,
)
from headrace.project.declared_tables import find_undeclared
from headrace.release.retired_tables import find_declared_again, read_retired_tables
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.files import dump_yaml
from headrace.storage.retired_tables import FILE

TINY = dataset("tiny")
MANY = dict.fromkeys(range(1, 4), 1)
TOTALS = "features/tiny/totals"
WITHOUT = replace(TINY, features=())


@pytest.fixture
def clone(origin: Origin) -> Clone:
    """A clone in which three days are released."""
    origin.first.run(TINY, MANY)
    origin.first.release(TINY)
    return origin.first


def drop(clone: Clone, declared: Dataset, name: str, *, dry_run: bool = False) -> DropResult:
    tables = find_dropped(declared, name, clone.table_store)
    return drop_tables(declared.name, tables, clone.table_store, reason="nobody reads it", dry_run=dry_run)


def released_tables(clone: Clone, release: str) -> set[str]:
    return {path.removeprefix("data/") for path in recorded_outs(clone.root, release)}


def test_a_dropped_table_leaves_the_workspace_and_the_next_release_but_not_the_earlier_ones(
    clone: Clone, origin: Origin
) -> None:
    done = drop(clone, WITHOUT, "totals")
    made = clone.release(WITHOUT)

    assert (list(done.tables), done.tables[TOTALS].partitions, done.kept_by) == ([TOTALS], 3, "tiny/1")
    assert not clone.table_store.folder(TOTALS).exists()
    assert made.name == "tiny/2"
    assert TOTALS not in released_tables(clone, "tiny/2")
    assert "tiny-transform-totals" not in git(clone.root, "show", "tiny/2:dvc.lock")
    notes = origin.git("tag", "--list", "--format=%(contents)", "tiny/2")
    assert f"{TOTALS}: dropped by " in notes
    assert "UTC: nobody reads it" in notes
    assert clone.git("status", "--porcelain").split() == ["??", FILE]
    other = origin.clone("other")
    rows = open_dataset("tiny", release="tiny/1", workspace=as_project(other).root)["features/totals"].polars()
    assert rows.collect().height == 2 * len(MANY)


def as_project(clone: Clone) -> Clone:
    (clone.root / "pipelines").mkdir(exist_ok=True)
    (clone.root / "pipelines/__init__.py").touch()
    return clone


def test_a_source_is_dropped_with_its_validated_and_rejected_rows(clone: Clone) -> None:
    nothing = replace(TINY, sources=(), features=())

    done = drop(clone, nothing, "sales")

    assert list(done.tables) == ["raw/tiny/sales", "rejected/tiny/sales", "validated/tiny/sales"]
    assert clone.table_store.known_tables("tiny") == (TOTALS,)
    assert not list((clone.root / "data").rglob("*.dvc"))


def test_a_labeling_task_is_dropped_with_its_answers_and_labels(origin: Origin) -> None:
    asked, clone = dataset("tiny", QUESTION), origin.first
    clone.run(asked, MANY)
    clone.collect(asked, "east-1")
    clone.release(asked)

    done = drop(clone, TINY, "state")
    made = clone.release(TINY)

    assert list(done.tables) == ["annotations/tiny/state", "labels/tiny/state", "rejected/tiny/state"]
    assert (made.name, "annotations/tiny/state" in released_tables(clone, "tiny/2")) == ("tiny/2", False)
    assert "annotations/tiny/state" in released_tables(clone, "tiny/1")


def test_by_default_nothing_is_changed_and_a_drop_can_be_repeated(clone: Clone) -> None:
    shown = drop(clone, WITHOUT, "totals", dry_run=True)
    assert clone.table_store.folder(TOTALS).exists()
    assert (shown.dry_run, read_retired_tables(clone.root)) == (True, {})

    drop(clone, WITHOUT, "totals")
    retired = read_retired_tables(clone.root)
    again = drop(clone, WITHOUT, "totals")

    assert list(again.tables) == [TOTALS]
    assert read_retired_tables(clone.root) == retired


def test_what_is_declared_or_read_by_a_hand_written_stage_stays(clone: Clone) -> None:
    place = rf"minimal_dataset\.py:{minimal_dataset.FEATURES.place[1]}"

    with pytest.raises(StillDeclaredError, match=rf"{place} still declares totals"):
        drop(clone, TINY, "totals")
    with pytest.raises(NotOnRecordError, match=r"a table 'sums' that is on record and not declared, found totals"):
        drop(clone, WITHOUT, "sums")
    stage = {"cmd": "python train.py", "deps": [f"data/{TOTALS}/_manifest/head.json"]}
    (clone.root / "dvc.yaml").write_bytes(dump_yaml({"stages": {"train": stage}}))
    with pytest.raises(StillReadError, match=rf"dvc\.yaml:5: the stage train reads data/{TOTALS}/"):
        drop(clone, WITHOUT, "totals")

    assert clone.table_store.folder(TOTALS).exists()


@pytest.mark.usefixtures("clone")
def test_another_clone_may_not_release_without_a_table_that_nobody_dropped(origin: Origin) -> None:
    other = origin.clone("other")
    other.run(WITHOUT, MANY)

    with pytest.raises(FindingsError, match=f"{TOTALS}: all 3 partitions would vanish since tiny/1") as refused:
        other.release(WITHOUT)

    assert "`headrace drop tiny totals` or `headrace rename tiny totals NEW` records why" in str(refused.value)
    [finding] = refused.value.findings
    accept_finding(open_finding_log(other.table_store, "tiny"), finding.id, by="ann", reason="a test")
    assert other.release(WITHOUT).name == "tiny/2"


def test_a_committed_drop_is_the_reason_in_every_clone(clone: Clone, origin: Origin) -> None:
    drop(clone, WITHOUT, "totals")
    text = (clone.root / FILE).read_text()
    (clone.root / FILE).unlink()
    other = origin.clone("other")
    other.push_file(FILE, text)
    other.run(WITHOUT, MANY)

    made = other.release(WITHOUT)

    assert (made.name, made.accepted) == ("tiny/2", [])
    assert TOTALS not in released_tables(other, "tiny/2")


def test_a_table_that_was_dropped_and_is_declared_again_is_released_again(clone: Clone) -> None:
    drop(clone, WITHOUT, "totals")
    clone.release(WITHOUT)
    clone.refresh(TINY)

    made = clone.release(TINY)
    [finding] = find_declared_again([TINY], clone.root)

    assert (made.name, TOTALS in released_tables(clone, "tiny/3")) == ("tiny/3", True)
    assert (clone.root / FILE).read_text().splitlines()[finding.line - 1] == f"{TOTALS}:"
    assert finding.problem.startswith(f"{TOTALS} is declared again: remove its entry")


def test_a_dropped_dataset_leaves_the_release_branch_with_the_next_release_of_another(
    origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_RELEASE_BRANCH", "releases")
    clone, other = origin.first, dataset("other")
    clone.release(TINY, 1)
    clone.release(other, 1)
    tables = find_dataset("tiny", clone.table_store)

    drop_tables("tiny", tables, clone.table_store, reason="the shops closed", dry_run=False)
    origin.clone("writer").push_file(FILE, (clone.root / FILE).read_text())
    made = clone.release(other, 2)

    assert clone.table_store.known_tables("tiny") == ()
    recorded = {path.split("/")[2] for path in recorded_outs(clone.root, made.name)}
    assert (made.name, recorded) == ("other/2", {"other"})
    assert "tiny" not in git(clone.root, "show", f"{made.name}:dvc.yaml")
    assert f"data/{TOTALS}" in recorded_outs(clone.root, "tiny/1")


def test_a_dataset_that_is_declared_or_unknown_is_not_dropped(clone: Clone) -> None:
    with pytest.raises(NotOnRecordError, match="neither a table nor a release of a dataset 'nothing'"):
        find_dataset("nothing", clone.table_store)
    folder = clone.root / "pipelines/tiny"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    with pytest.raises(StillDeclaredError, match=r"pipelines/tiny/__init__\.py still declares the dataset tiny"):
        find_dataset("tiny", clone.table_store)


def test_a_check_names_what_nothing_declares_with_the_command(clone: Clone) -> None:
    (as_project(clone).root / "pipelines/tiny").mkdir()
    (clone.root / "pipelines/tiny/__init__.py").touch()

    assert list(find_undeclared([TINY], clone.table_store, every=True)) == []
    [finding] = find_undeclared([WITHOUT], clone.table_store, every=True)
    (clone.root / "pipelines/tiny/__init__.py").unlink()
    [whole] = find_undeclared([], clone.table_store, every=True)

    assert f"nothing declares {TOTALS}, on record here: `headrace drop tiny totals`" in finding.problem
    assert (finding.level, whole.level) == ("warning", "warning")
    assert "`headrace drop tiny` or, under a new name, `headrace rename tiny NEW`" in whole.problem
    assert FEATURES.name in finding.problem
