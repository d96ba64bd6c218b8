"""What must hold of every dataset, whoever declares it; and of the datasets of this repository."""

import pytest
from workspaces import REPOSITORY

from headrace.engine.fingerprint import stage_code
from headrace.errors import HeadraceError
from headrace.project import graph
from headrace.project.loading import dataset_names, load_dataset, load_datasets
from headrace.testing import ProjectTests


@pytest.mark.slow
class TestProject(ProjectTests):
    """The tests that come with the engine, for the worked example."""


def test_no_stage_depends_on_a_file_of_the_engine() -> None:
    datasets, _ = load_datasets()
    files = {
        name
        for dataset in datasets
        for stage in graph.dataset_stages(dataset)
        for name in stage_code(stage, REPOSITORY).files
    }

    assert [name for name in files if name.startswith("headrace/")] == []


def test_a_dataset_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(HeadraceError, match=rf"no dataset 'nope'.*{dataset_names()[0]}.*headrace new"):
        load_dataset("nope")
