"""Who returns to earlier code gets what an earlier release holds: nothing is computed, and the bytes are the same."""

from pathlib import Path

import pytest
from raw_data import days
from workspaces import Workspace, git

from headrace.engine.run import plan_all
from headrace.project import graph
from headrace.release.release import create_release

KERNEL = "pipelines/flights/features/carrier_delays.py"
CARRIERS = "features/flights/carrier_delays"
LINE = 'facts = facts.with_columns(late=is_late(params["late_min"]))'


def md5s(workspace: Workspace, release: str) -> dict[str, dict[str, str]]:
    tables = (stage.table for stage in graph.dataset_stages(workspace.dataset))
    found = {table: workspace.table_store.recorded_manifest(table, release) for table in tables}
    return {table: manifest.md5s for table, manifest in found.items() if manifest}


def release(workspace: Workspace) -> str:
    return create_release(workspace.dataset, workspace.table_store).name


@pytest.fixture
def returned(released: Workspace) -> Workspace:
    """Release 1 with a parameter, release 2 with another value of it, and now the first value again."""
    released.edit("params.yaml", "late_min: 15", "late_min: 60")
    released.publish_code("Later is late")
    released.refresh()
    assert release(released) == "flights/2"
    released.edit("params.yaml", "late_min: 60", "late_min: 15")
    released.publish_code("As before")
    return released


def test_a_parameter_that_is_set_back_computes_nothing(returned: Workspace) -> None:
    ran = returned.refresh()

    assert {table: result.computed for table, result in ran.items() if result.computed} == {}
    assert release(returned) == "flights/3"
    assert md5s(returned, "flights/3") == md5s(returned, "flights/1")
    assert md5s(returned, "flights/3") != md5s(returned, "flights/2")


def test_the_plan_says_so_before_a_run(returned: Workspace) -> None:
    plans = {plan.stage.table: plan for plan in plan_all(graph.dataset_stages(returned.dataset), returned.table_store)}

    assert {table: plan.stale for table, plan in plans.items() if plan.stale} == {}
    assert plans[CARRIERS].computed_before == days(1, 3)


def test_a_clone_that_has_none_of_the_bytes_takes_them_from_the_remote(returned: Workspace) -> None:
    reader = returned.clone("reader")

    ran = reader.refresh()

    assert {table: result.computed for table, result in ran.items() if result.computed} == {}
    assert reader.table_store.manifest(CARRIERS).md5s == md5s(returned, "flights/1")[CARRIERS]


def test_partitions_whose_bytes_are_gone_are_computed(returned: Workspace) -> None:
    lost = md5s(returned, "flights/1")[CARRIERS][days(2, 2)[0]]
    cache = returned.table_store.cache
    cache.path(lost).unlink()
    cache.remote.bucket.delete(cache.remote.key(lost))

    ran = returned.refresh()

    assert list(ran[CARRIERS].computed) == days(2, 2)
    assert returned.table_store.manifest(CARRIERS).md5s == md5s(returned, "flights/1")[CARRIERS]


def test_data_that_came_after_the_earlier_code_is_computed_with_it(returned: Workspace) -> None:
    returned.raw.add_days(*days(4, 4))

    ran = returned.refresh()

    assert list(ran[CARRIERS].computed) == days(4, 4)


def test_code_that_is_reverted_computes_nothing_whatever_its_comments_say(released: Workspace) -> None:
    transform = ("headrace", "transform", "flights", "--table", "carrier_delays")
    released.edit(KERNEL, LINE, LINE.replace('params["late_min"]', '2 * params["late_min"]'))
    released.publish_code("Twice as late")
    changed = released.command(*transform)
    released.command("headrace", "transform", "flights")
    released.command("headrace", "release", "flights")
    git(released.root, "pull", "--quiet", "--ff-only")
    released.edit(KERNEL, LINE.replace('params["late_min"]', '2 * params["late_min"]'), f"{LINE}  # as at first")
    released.publish_code("As at first")

    returned = released.command(*transform)

    assert f"{CARRIERS}: 3 computed" in changed
    assert f"{CARRIERS}: nothing to do, 3 reused" in returned
    stored = released.table_store.manifest(CARRIERS)
    assert stored.md5s == md5s(released, "flights/1")[CARRIERS]
    assert Path(released.root, "data", CARRIERS, f"{days(1, 1)[0]}.parquet").exists()
