"""A training set's promises: one release gives the same rows for ever, from any clone; a lock file holds them to it."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import feature_workspace
import polars as pl
import pytest
from feature_workspace import (
    AIRCRAFT,
    DATASET,
    HOUR,
    LARGE_INT,
    NOON,
    WEATHER,
    requests_with_all_keys,
    write_all_tables,
    write_table,
)
from servers import S3
from workspaces import mark_as_project

from headrace.dataset import Dataset
from headrace.errors import HeadraceError, MissingObjectError
from headrace.feast.retrieve import feast_retrieval, published_rows
from headrace.retrieve.errors import UnknownReleaseError
from headrace.retrieve.retrieve import FeatureRequest, retrieve, retrieve_at_release
from headrace.retrieve.row_hash import RowHasher
from headrace.retrieve.splits import KeySplit
from headrace.retrieve.training_set import InvalidLockFileError, TrainingSet, TrainingSetMismatchError
from headrace.settings import Settings
from headrace.storage.dvc.lock import recorded_outs
from headrace.storage.table_store import TableStore

LATE = {"tailnum": "N2", "event_time": NOON - HOUR, "delay_min": 77.0}


@pytest.fixture
def table_store(tmp_path: Path) -> Iterator[TableStore]:
    made = feature_workspace.create_workspace(tmp_path / "workspace")
    write_all_tables(made)
    requests_with_all_keys([NOON, NOON - timedelta(days=30)]).write_parquet(tmp_path / "requests.parquet")
    yield made
    feature_workspace.close_all()


def create_set(
    table_store: TableStore, asked: FeatureRequest, dataset: Dataset = DATASET, requests: str = "requests.parquet"
) -> Path:
    folder = table_store.root.parent
    return retrieve(
        dataset, table_store, published_rows(table_store, Settings()), folder / requests, folder / "out.parquet", asked
    ).path


# --- at a release ---


def test_two_retrievals_at_one_release_are_the_same_bytes_however_much_came_in_between(table_store: TableStore) -> None:
    first = feature_workspace.tag_release(table_store, 1)
    before = create_set(table_store, FeatureRequest(release=first)).read_bytes()
    write_table(table_store, AIRCRAFT, [LATE])
    second = feature_workspace.tag_release(table_store, 2)

    after = create_set(table_store, FeatureRequest(release=first)).read_bytes()
    now = pl.read_parquet(create_set(table_store, FeatureRequest(release=second)))

    assert after == before
    assert now["aircraft_history__delay_min"].to_list() == [77.0, None]


@pytest.mark.parametrize("names", [(), ("route_traffic:temp_c", "origin_weather:sky", "origin_weather:temp_c")])
@pytest.mark.slow
def test_a_release_answers_without_feast_what_feast_answers_for_it(
    table_store: TableStore, names: Sequence[str]
) -> None:
    asked = requests_with_all_keys([NOON, NOON - HOUR, NOON + timedelta(days=30)])
    release = feature_workspace.tag_release(table_store, 1)
    feature_workspace.publish_release(table_store, release)
    published = feast_retrieval(DATASET, feature_workspace.open_workspace_store(table_store), asked, names).to_polars()
    feature_workspace.close_all()

    job = retrieve_at_release(DATASET, table_store, release, asked, names)

    assert job.to_polars().equals(published)
    assert job.to_polars().schema == published.schema
    assert [str(kind) for kind in job.to_df().dtypes][:3] == ["object", "datetime64[us, UTC]", "object"]
    assert job.to_arrow().schema == next(job.to_batches()).schema


@pytest.mark.slow
def test_a_release_is_read_without_importing_feast() -> None:
    words = "import sys, headrace.retrieve.retrieve, headrace.retrieve.result, headrace.retrieve.join"
    words += "; print({'feast', 'pandas'} & {*sys.modules})"

    done = subprocess.run([sys.executable, "-c", words], capture_output=True, check=True, text=True)

    assert done.stdout == "set()\n"


def test_one_retrieval_reads_one_version_of_a_table_that_is_written_meanwhile(table_store: TableStore) -> None:
    job = retrieve_at_release(DATASET, table_store, "", requests_with_all_keys([NOON]), ["aircraft_history:delay_min"])
    before = job.to_polars()

    write_table(table_store, AIRCRAFT, [LATE])

    assert job.to_polars().equals(before)
    assert before["aircraft_history__delay_min"].to_list() == [-4.0]


def test_a_clone_without_its_bytes_answers_from_the_remote_and_fetches_only_what_can_matter(
    table_store: TableStore, s3: S3, tmp_path: Path
) -> None:
    days = [NOON + timedelta(days=day) for day in range(-9, 3)]
    write_table(table_store, AIRCRAFT, [{"tailnum": "N2", "event_time": day, "delay_min": 1.0} for day in days])
    release = feature_workspace.tag_release(table_store, 1)
    expected = retrieve_at_release(DATASET, table_store, release, requests_with_all_keys([NOON])).to_polars()
    clone = pushed_clone(table_store, s3, tmp_path)

    answer = retrieve_at_release(DATASET, clone, release, requests_with_all_keys([NOON])).to_polars()

    fetched = {
        day: clone.cache.has(entry.md5)
        for day, entry in table_store.manifest("features/little/aircraft_history").partitions.items()
    }
    assert answer.equals(expected)
    assert [day for day, there in fetched.items() if there] == [f"2013-01-{day:02}" for day in range(2, 10)]


def test_a_release_whose_object_is_not_on_the_remote_is_refused_and_nothing_is_written(
    table_store: TableStore, s3: S3, tmp_path: Path
) -> None:
    release = feature_workspace.tag_release(table_store, 1)
    clone = pushed_clone(table_store, s3, tmp_path)
    lost = table_store.manifest("features/little/origin_weather").partitions["2013-01-09"].md5
    clone.cache.remote.bucket.delete(clone.cache.remote.key(lost))

    with pytest.raises(MissingObjectError, match=lost[2:]):
        retrieve(
            DATASET,
            clone,
            published_rows(clone, Settings()),
            tmp_path / "requests.parquet",
            tmp_path / "o.parquet",
            FeatureRequest((), release),
        )

    assert not (tmp_path / "o.parquet").exists()


def test_a_release_that_does_not_exist_is_refused_with_where_to_look(table_store: TableStore) -> None:
    feature_workspace.tag_release(table_store, 1)

    with pytest.raises(UnknownReleaseError, match=r"no release little/9 .*git fetch --tags"):
        create_set(table_store, FeatureRequest(release="little/9"))


def pushed_clone(table_store: TableStore, s3: S3, folder: Path) -> TableStore:
    """The workspace as somebody else clones it: git's files, a remote with every object, and an empty cache."""
    bucket = s3.new_bucket()
    keys = f"access_key_id = {bucket.access_key}\nsecret_access_key = {bucket.secret_key}\nregion = us-east-1"
    config = f"[core]\nremote = storage\n['remote \"storage\"']\nurl = s3://{bucket.name}/dvc\n"
    root = Path(shutil.copytree(table_store.root, folder / "clone", ignore=shutil.ignore_patterns("data", ".dvc")))
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text(f"{config}endpointurl = {bucket.endpoint}\n{keys}\n")
    clone = TableStore.at(root)
    for path in (table_store.root / ".dvc/cache/files/md5").glob("*/*"):
        clone.cache.remote.write(path.parent.name + path.name, path)
    assert recorded_outs(root)
    return clone


# --- the lock ---


def test_a_lock_is_written_once_and_then_the_rows_must_be_the_locked_ones(table_store: TableStore) -> None:
    lock, release = table_store.root / "train.lock.json", feature_workspace.tag_release(table_store, 1)

    first = create_set(table_store, FeatureRequest(release=release, lock_file=lock)).read_bytes()
    written = lock.read_bytes()
    write_table(table_store, AIRCRAFT, [LATE])
    again = create_set(table_store, FeatureRequest(lock_file=lock)).read_bytes()

    assert again == first
    assert lock.read_bytes() == written
    assert TrainingSet.read(lock) is not None


def test_a_lock_holds_specification_release_and_hashes_and_neither_paths_nor_clocks(table_store: TableStore) -> None:
    lock, release = table_store.root / "train.lock.json", feature_workspace.tag_release(table_store, 1)

    create_set(
        table_store,
        FeatureRequest(["origin_weather:gusts"], release, KeySplit(["tailnum"], {"train": 0.5, "test": 0.5}), lock),
    )

    held = json.loads(lock.read_text())
    assert held["spec"]["release"] == release
    assert held["spec"]["features"] == ["origin_weather:gusts"]
    assert held["spec"]["declarations"] == {"origin_weather": {"keys": ["origin"], "ttl_seconds": 21600.0}}
    assert held["spec"]["split"]["shares"] == {"train": 0.5, "test": 0.5}
    assert [*held["table_hashes"]] == ["origin_weather"]
    assert held["requests"]["rows"] == held["result"]["rows"] == 2
    assert [*held["result"]["columns"]] == [*held["requests"]["columns"], "origin_weather__gusts", "split"]
    assert str(table_store.root) not in lock.read_text()
    assert len(lock.read_bytes()) < 2_000


def test_other_requests_are_named_by_column_and_nothing_is_written(table_store: TableStore) -> None:
    lock, folder = table_store.root / "train.lock.json", table_store.root.parent
    create_set(
        table_store, FeatureRequest(release=feature_workspace.tag_release(table_store, 1), lock_file=lock)
    ).unlink()
    requests_with_all_keys([NOON, NOON]).write_parquet(folder / "other.parquet")

    with pytest.raises(
        TrainingSetMismatchError, match=r"requests columns event_timestamp: locked \"\w{32}\", found"
    ) as no:
        create_set(table_store, FeatureRequest(lock_file=lock), requests="other.parquet")

    assert "origin_weather__temp_c" in str(no.value)
    assert "Nothing was written" in str(no.value)
    assert not (folder / "out.parquet").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (FeatureRequest(release="little/2"), r'spec release: locked "little/1", found "little/2"'),
        (FeatureRequest(["origin_weather:sky"]), r"spec features: locked .*, found \[\"origin_weather:sky\"\]"),
    ],
)
def test_another_release_or_another_feature_is_named(
    table_store: TableStore, asked: FeatureRequest, message: str
) -> None:
    lock = table_store.root / "train.lock.json"
    create_set(table_store, FeatureRequest(release=feature_workspace.tag_release(table_store, 1), lock_file=lock))
    feature_workspace.tag_release(table_store, 2)

    with pytest.raises(TrainingSetMismatchError, match=message):
        create_set(table_store, replace(asked, lock_file=lock))


def test_a_ttl_that_was_declared_otherwise_since_is_named(table_store: TableStore) -> None:
    lock = table_store.root / "train.lock.json"
    create_set(table_store, FeatureRequest(release=feature_workspace.tag_release(table_store, 1), lock_file=lock))
    shorter = replace(DATASET, features=(replace(WEATHER, ttl=timedelta(minutes=5)), *DATASET.features[1:]))

    with pytest.raises(
        TrainingSetMismatchError, match=r"declarations origin_weather ttl_seconds: locked 21600.0, found 300.0"
    ):
        create_set(table_store, FeatureRequest(lock_file=lock), shorter)


def test_a_lock_needs_a_release(table_store: TableStore) -> None:
    with pytest.raises(HeadraceError, match=r"a lock file names a release.*Give --release"):
        create_set(table_store, FeatureRequest(release="", lock_file=table_store.root / "train.lock.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-40], r"expected the lock file of a training set, found \w+Error"),
        (lambda text: text.replace('"rows": 2', '"rows": 3', 1), r"it was edited by hand.*git checkout"),
        (lambda text: text.replace('"format": 2', '"format": 3', 1), r"expected lock file format 2, found 3.*upgrade"),
    ],
)
def test_a_lock_that_is_torn_or_edited_is_refused(table_store: TableStore, change: object, message: str) -> None:
    lock = table_store.root / "train.lock.json"
    create_set(table_store, FeatureRequest(release=feature_workspace.tag_release(table_store, 1), lock_file=lock))
    assert callable(change)
    lock.write_text(change(lock.read_text()))

    with pytest.raises(InvalidLockFileError, match=message):
        create_set(table_store, FeatureRequest(lock_file=lock))


WRITTEN_BY_0_1 = """{"id": "ecc0c0e54071a237", "question": {"dataset": "little", "release": "little/1",
"features": ["origin_weather:gusts"], "as_known": true,
"declared": {"origin_weather": {"keys": ["origin"], "ttl_seconds": 21600.0}}, "split": {}},
"tables": {"origin_weather": "aa"}, "requests": {"rows": 2, "columns": {"origin": "bb"}},
"result": {"rows": 2, "columns": {"origin": "bb", "origin_weather__gusts": "cc"}}}"""


def test_a_lock_that_0_1_wrote_is_read_and_keeps_its_identifier(tmp_path: Path) -> None:
    lock = tmp_path / "train.lock.json"
    lock.write_text(WRITTEN_BY_0_1)

    read = TrainingSet.read(lock)

    assert read is not None
    assert read.id == "ecc0c0e54071a237"
    assert read.spec.declarations == {"origin_weather": {"keys": ["origin"], "ttl_seconds": 21600.0}}
    assert read.table_hashes == {"origin_weather": "aa"}
    assert json.loads(read.to_bytes())["id"] == "ecc0c0e54071a237"


def test_a_lock_that_0_1_wrote_and_somebody_edited_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "train.lock.json"
    lock.write_text(WRITTEN_BY_0_1.replace("little/1", "little/2"))

    with pytest.raises(InvalidLockFileError, match="edited by hand"):
        TrainingSet.read(lock)


def test_rows_are_still_the_locked_ones_when_0_1_locked_them(table_store: TableStore) -> None:
    lock, release = table_store.root / "train.lock.json", feature_workspace.tag_release(table_store, 1)
    first = create_set(table_store, FeatureRequest(release=release, lock_file=lock)).read_bytes()
    new = json.loads(lock.read_text())
    question = {"declared" if name == "declarations" else name: value for name, value in new["spec"].items()}
    kept = {name: new[name] for name in ("id", "requests", "result")}
    lock.write_text(json.dumps({**kept, "question": question, "tables": new["table_hashes"]}))

    assert create_set(table_store, FeatureRequest(lock_file=lock)).read_bytes() == first


def test_the_fingerprint_of_rows_does_not_depend_on_how_they_are_cut_and_sees_every_value() -> None:
    rows = pl.DataFrame(
        {
            "n": [1, None, LARGE_INT, 0],
            "x": [0.5, float("nan"), None, -0.0],
            "s": ["", "ab", None, "c"],
            "b": [True, None, False, True],
            "l": [[1], [], None, [2, 3]],
            "t": [NOON, None, NOON + HOUR, NOON],
        }
    )

    whole, cut = RowHasher(), RowHasher()
    whole.add(rows)
    for part in rows.iter_slices(1):
        cut.add(part)

    assert cut.summary() == whole.summary()
    for name in rows.columns:
        other = RowHasher()
        other.add(rows.with_columns(pl.col(name).reverse()))
        assert other.summary()["columns"][name] != whole.summary()["columns"][name]


def test_texts_that_run_together_alike_are_told_apart() -> None:
    one, two = RowHasher(), RowHasher()
    one.add(pl.DataFrame({"s": ["ab", "c"]}))
    two.add(pl.DataFrame({"s": ["a", "bc"]}))

    assert one.summary() != two.summary()


def test_the_command_line_locks_a_release_and_splits_it(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from headrace.cli import app  # noqa: PLC0415
    from headrace.project import loading  # noqa: PLC0415

    release, folder = feature_workspace.tag_release(table_store, 1), table_store.root.parent
    monkeypatch.setattr(loading, "load_dataset", {"little": DATASET}.get)
    mark_as_project(table_store.root)
    monkeypatch.chdir(table_store.root)
    files = ["--requests", str(folder / "requests.parquet"), "--out", str(folder / "out.parquet")]
    split = ["--split", "train=0.8,test=0.2", "--split-by", "tailnum", "--lock", "train.lock.json"]

    app(["retrieve", "little", *files, "--release", release, *split], standalone_mode=False)

    said = capsys.readouterr().out
    assert "2 rows in, 2 rows out, from little/1" in said
    assert f"training set {json.loads(Path('train.lock.json').read_text())['id']}" in said
    assert "origin_weather: 0 keys are in several splits, 0 pairs of rows of one key within 6:00:00 are in" in said
    assert subprocess.run(["git", "status", "--porcelain", "train.lock.json"], check=True, capture_output=True).stdout
