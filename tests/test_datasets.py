"""What must hold of every dataset, whoever declares it."""

import re

import pytest
from workspaces import REPOSITORY

from pipelines import graph, repro
from pipelines.dataset import UTC_MICROSECONDS, Dataset, Objects
from pipelines.datasets import NAMES, load
from pipelines.engine.code import closure
from pipelines.errors import HeadraceError
from pipelines.training.views import views


@pytest.fixture(params=NAMES)
def dataset(request: pytest.FixtureRequest) -> Dataset:
    """Every declared dataset in turn."""
    return load(request.param)


def test_dvc_yaml_is_what_the_datasets_declare() -> None:
    repro.check(REPOSITORY)


def test_it_is_called_as_its_folder_and_says_what_it_is_and_whose(dataset: Dataset) -> None:
    assert (REPOSITORY / "pipelines/datasets" / dataset.name / "__init__.py").exists()
    assert dataset.description.endswith(".")
    assert dataset.owner


def test_tables_have_names_that_files_columns_and_stages_can_have(dataset: Dataset) -> None:
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", stage.name) for stage in graph.stages(dataset))
    assert len({stage.table for stage in graph.stages(dataset)}) == len(graph.stages(dataset))


def test_what_a_request_can_be_joined_with_has_one_name(dataset: Dataset) -> None:
    assert len(views(dataset)) == len(dataset.features) + len(dataset.labels)


def test_every_contract_names_the_type_of_every_column_and_times_are_utc(dataset: Dataset) -> None:
    for source in dataset.sources:
        kinds = {name: column.dtype.type for name, column in source.contract.columns.items()}
        assert None not in kinds.values(), source.name
        assert {kind for kind in kinds.values() if kind.base_type() is type(UTC_MICROSECONDS)} <= {UTC_MICROSECONDS}


def test_every_source_tolerates_less_than_half_and_has_a_key(dataset: Dataset) -> None:
    for source in dataset.sources:
        assert 0 <= source.tolerance < 0.5, source.name
        assert source.key, source.name


def test_keys_of_object_sources_give_a_partition_or_are_one_object(dataset: Dataset) -> None:
    for source in dataset.sources:
        if isinstance(source.origin, Objects):
            assert source.origin.prefix.endswith("/"), source.name
            groups = re.compile(source.origin.partition).groupindex
            assert set(groups) <= {"partition"}, source.name


def test_a_feature_table_reads_only_what_a_stage_before_it_makes(dataset: Dataset) -> None:
    made = {f"raw/{dataset.name}/{source.name}" for source in dataset.sources}
    made |= {f"annotations/{dataset.name}/{labeling.name}" for labeling in dataset.labels}
    for stage in graph.stages(dataset):
        assert set(stage.reads) <= made, stage.table
        made |= {stage.table, *stage.beside}


def test_code_of_a_stage_is_found_and_no_stage_hangs_on_another_ones_module(dataset: Dataset) -> None:
    own = {stage.table: set(closure(stage.modules, REPOSITORY)) for stage in graph.stages(dataset)}

    for table, files in own.items():
        assert any(f"datasets/{dataset.name}/" in name for name in files), table
        assert not files & {"pipelines/engine/run.py", "pipelines/settings.py", "pipelines/engine/lake.py"}, table


def test_a_dataset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(HeadraceError, match=rf"no dataset 'nope'.*{NAMES[0]}.*add-your-dataset"):
        load("nope")
