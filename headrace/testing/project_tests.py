"""What must hold of every project, whoever declares it: `ProjectTests`, a class of tests to inherit from."""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from headrace.dataset import EVENT_TIME, KNOWN_TIME, UTC_MICROSECONDS, Dataset, ObjectSource
from headrace.engine.fingerprint import stage_code
from headrace.label.table_names import annotations_table
from headrace.project import dvc_stages, graph
from headrace.project.check import check_loaded
from headrace.project.code_check import check_dataset
from headrace.project.findings import errors
from headrace.project.loading import dataset_names, load_dataset
from headrace.project.params import with_param_values
from headrace.retrieve.joinable_tables import joinable_tables
from headrace.transform.kernel import time_arguments
from headrace.validate.apply_transform import apply_transform
from headrace.validate.compile_contract import contract_of
from headrace.validate.history_columns import with_history_columns
from headrace.workspace import DATASET_NAME, PACKAGE, find_workspace, use_project

MAX_REJECTED_SHARE = 0.5
"""From here on, a partition of which most rows are wrong would pass."""

SOME_DAY = "2026-01-09"

DAG_IMPORT_ERRORS = """if True:
    import json, sys
    from airflow.dag_processing.dagbag import BundleDagBag
    bag = BundleDagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
    print(json.dumps({"errors": bag.import_errors, "dags": sorted(bag.dags)}))
"""


class ProjectTests:
    """Tests that every project passes; inherit from it in a test file below the project's root.

    Tests that concern one dataset run once for each. A test of DAG files or of Feast definitions is skipped where
    Airflow or Feast is not installed. To leave a test out, override it.
    """

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test per dataset, for those that ask for a dataset."""
        if "dataset" in metafunc.fixturenames:
            use_project(_project(Path(metafunc.module.__file__ or "")))
            metafunc.parametrize("dataset", dataset_names(), indirect=True)

    @pytest.fixture
    def project(self, request: pytest.FixtureRequest) -> Path:
        """The project's root."""
        return _project(request.path)

    @pytest.fixture
    def dataset(self, request: pytest.FixtureRequest) -> Dataset:
        """A dataset of the project; a broken one fails the test with its error."""
        return load_dataset(request.param)

    def test_nothing_in_it_can_only_fail(self, dataset: Dataset, project: Path) -> None:
        """`headrace check` finds no error in its declaration, and in what its functions give for no rows."""
        assert [str(finding) for finding in errors(check_loaded(dataset, project))] == []

    def test_a_dataset_says_what_it_is_and_who_answers_for_it(self, dataset: Dataset) -> None:
        """`description` is a sentence, `owner` is not empty."""
        assert dataset.description.endswith(".")
        assert dataset.owner

    def test_tables_have_names_that_files_columns_and_stages_can_have(self, dataset: Dataset) -> None:
        """Lower-case letters, digits and underscores; each table once."""
        tables = [stage.table for stage in graph.dataset_stages(dataset)]
        assert [table for table in tables if not DATASET_NAME.fullmatch(table.rsplit("/", 1)[1])] == []
        assert len(set(tables)) == len(tables)

    def test_every_source_has_a_key_and_a_bound_on_rejected_rows(self, dataset: Dataset) -> None:
        """Half of a partition rejected is not a good partition."""
        for source in dataset.sources:
            assert source.key, source.name
            assert 0 <= source.max_rejected_share < MAX_REJECTED_SHARE, source.name

    def test_every_contract_compiles_and_its_times_are_utc(self, dataset: Dataset, project: Path) -> None:
        """What can only fail is found before there is data."""
        for source in with_param_values(dataset, project).sources:
            kinds = contract_of(source).columns.values()
            assert {kind for kind in kinds if isinstance(kind, pl.Datetime)} <= {UTC_MICROSECONDS}, source.name

    def test_the_contract_and_the_transform_of_a_source_fit_together(self, dataset: Dataset) -> None:
        """The transform takes the contract's columns, and gives those that the key and `pii_columns` name."""
        for source in dataset.sources:
            recorded = with_history_columns(source)
            rows = apply_transform(source.name, recorded, recorded.schema.create_empty())
            assert {*source.key, *source.pii_columns} <= set(rows.columns), source.name

    def test_a_feature_table_computed_from_no_rows_has_its_declared_columns(
        self, dataset: Dataset, project: Path
    ) -> None:
        """Its transform names columns that its inputs have, and gives keys, times and features of their types."""
        dataset = with_param_values(dataset, project)
        tables = {
            f"validated/{source.name}": apply_transform(source.name, source, source.schema.create_empty())
            for source in map(with_history_columns, dataset.sources)
        }
        for table in dataset.features:
            if not all(one.table in tables for one in table.inputs.values()):
                continue  # it reads labels or annotations
            frames = {name: tables[one.table].lazy() for name, one in table.inputs.items()}
            found = table.transform(**time_arguments(table, SOME_DAY), **frames).collect_schema()
            wanted = {EVENT_TIME: UTC_MICROSECONDS, KNOWN_TIME: UTC_MICROSECONDS, **table.features}
            assert {name: found.get(name) for name in wanted} == wanted, table.name
            assert set(table.keys) <= set(found), table.name

    def test_the_pattern_of_an_object_source_compiles_and_has_at_most_a_partition(self, dataset: Dataset) -> None:
        """`partition` is a regular expression over what follows the location in a key."""
        for source in dataset.sources:
            if isinstance(source.location, ObjectSource):
                assert set(re.compile(source.location.partition).groupindex) <= {"partition"}, source.name

    def test_a_table_reads_only_what_an_earlier_stage_makes(self, dataset: Dataset) -> None:
        """Inputs are tables of the dataset, declared before what reads them."""
        made = {f"raw/{dataset.name}/{source.name}" for source in dataset.raw_sources}
        made |= {annotations_table(dataset, labeling) for labeling in dataset.labels}
        for stage in graph.dataset_stages(dataset):
            assert set(stage.reads) <= made, stage.table
            made |= {stage.table, *stage.companion_tables}

    def test_a_feature_table_names_no_column_twice(self, dataset: Dataset) -> None:
        """Keys, times and features are one row of the online store."""
        for table in dataset.features:
            names = [*table.keys, EVENT_TIME, KNOWN_TIME, *table.features]
            assert len(set(names)) == len(names), table.name

    def test_what_a_request_can_be_joined_with_has_one_name(self, dataset: Dataset) -> None:
        """Feature tables and labels are asked for by name."""
        assert len(joinable_tables(dataset)) == len(dataset.features) + len(dataset.labels)

    def test_the_code_of_every_stage_is_found_in_the_dataset(self, dataset: Dataset, project: Path) -> None:
        """What a stage runs is followed from the modules that declare it; the cache key depends on it."""
        for stage in graph.dataset_stages(dataset):
            files = stage_code(stage, project).files
            assert [name for name in files if name.startswith(f"{PACKAGE}/{dataset.name}/")], stage.table

    def test_its_code_reads_nothing_that_its_cache_keys_miss(self, dataset: Dataset) -> None:
        """No dynamic import, no undeclared file: `headrace check` finds nothing."""
        assert [str(finding) for finding in check_dataset(dataset)] == []

    def test_dvc_yaml_and_headrace_lock_are_what_the_datasets_declare(self, project: Path) -> None:
        """`headrace dvc-sync` writes both."""
        dvc_stages.check_dvc_files(project)

    def test_every_dag_file_imports(self, project: Path, tmp_path: Path) -> None:
        """Airflow's own loader reads `dags/` without an error and finds a DAG; it starts in another folder."""
        _skip_without("airflow")
        settings = {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
        }
        found = json.loads(_run(tmp_path, settings, "-c", DAG_IMPORT_ERRORS, str(project / "dags")).splitlines()[-1])
        assert found["errors"] == {}
        assert found["dags"]

    def test_the_feast_definitions_import(self, project: Path, tmp_path: Path) -> None:
        """Feast's file of definitions runs outside the project, against an empty registry."""
        _skip_without("feast")
        settings = {
            "FEAST_REGISTRY_URL": f"sqlite:///{tmp_path}/registry.db",
            "FEAST_ONLINE_STORE_PATH": str(tmp_path / "online.db"),
            "FEAST_USAGE": "False",
        }
        _run(tmp_path, settings, str(project / "feature_repo/definitions.py"))


def _project(test: Path) -> Path:
    root = find_workspace(test.parent)
    assert root is not None, f"{test} is in no Headrace project: expected dvc.yaml and {PACKAGE}/ in a folder above it"
    return root


def _skip_without(package: str) -> None:
    """Skip the test if an extra is not installed: a project may use neither Airflow nor Feast, and still has tests."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def _run(folder: Path, settings: dict[str, str], *arguments: str) -> str:
    """What a process of this Python prints, started outside the project."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
