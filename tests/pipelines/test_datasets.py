"""What must hold of every dataset, whoever declares it."""

import re

import pytest
from workspaces import REPOSITORY

from headrace.dataset import UTC_MICROSECONDS, Dataset, ObjectSource
from headrace.engine.fingerprint import stage_code
from headrace.errors import HeadraceError
from headrace.project import dvc_stages, graph
from headrace.project.loading import dataset_names, load_dataset
from headrace.retrieve.joinable_tables import views
from headrace.validate.compile_contract import contract_of


@pytest.fixture(params=dataset_names())
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """Every declared dataset in turn."""
    return load_dataset(request.param)


def test_dvc_yaml_is_what_the_datasets_declare() -> None:
    dvc_stages.check(REPOSITORY)


def test_it_is_called_as_its_folder_and_says_what_it_is_and_whose(dataset: Dataset) -> None:
    assert (REPOSITORY / "pipelines" / dataset.name / "__init__.py").exists()
    assert dataset.description.endswith(".")
    assert dataset.owner


def test_tables_have_names_that_files_columns_and_stages_can_have(dataset: Dataset) -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", stage.name) for stage in graph.dataset_stages(dataset))
    assert len({stage.table for stage in graph.dataset_stages(dataset)}) == len(graph.dataset_stages(dataset))


def test_what_a_request_can_be_joined_with_has_one_name(dataset: Dataset) -> None:
    assert len(views(dataset)) == len(dataset.features) + len(dataset.labels)


def test_every_contract_compiles_and_its_times_are_utc(dataset: Dataset) -> None:
    for source in dataset.sources:
        kinds = contract_of(source).columns.values()
        assert {kind for kind in kinds if kind.base_type() is type(UTC_MICROSECONDS)} <= {UTC_MICROSECONDS}


def test_every_source_tolerates_less_than_half_and_has_a_key(dataset: Dataset) -> None:
    for source in dataset.sources:
        assert 0 <= source.max_rejected_share < 0.5, source.name
        assert source.key, source.name


def test_keys_of_object_sources_give_a_partition_or_are_one_object(dataset: Dataset) -> None:
    for source in dataset.sources:
        if isinstance(source.location, ObjectSource):
            assert source.location.prefix.endswith("/"), source.name
            groups = re.compile(source.location.partition).groupindex
            assert set(groups) <= {"partition"}, source.name


def test_a_feature_table_reads_only_what_a_stage_before_it_makes(dataset: Dataset) -> None:
    made = {f"raw/{dataset.name}/{source.name}" for source in dataset.sources}
    made |= {f"annotations/{dataset.name}/{labeling.name}" for labeling in dataset.labels}
    for stage in graph.dataset_stages(dataset):
        assert set(stage.reads) <= made, stage.table
        made |= {stage.table, *stage.beside}


def test_code_of_a_stage_is_found_and_no_stage_hangs_on_another_ones_module(dataset: Dataset) -> None:
    own = {stage.table: set(stage_code(stage, REPOSITORY).files) for stage in graph.dataset_stages(dataset)}

    for table, files in own.items():
        assert any(name.startswith(f"pipelines/{dataset.name}/") for name in files), table
        assert not [name for name in files if name.startswith("headrace/")], table


def test_a_dataset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(HeadraceError, match=rf"no dataset 'nope'.*{dataset_names()[0]}.*headrace new"):
        load_dataset("nope")
