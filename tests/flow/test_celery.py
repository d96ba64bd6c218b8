"""The refresh DAG on Celery: workers that share no disk release the bytes that one machine releases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery_cluster import DAG, QUEUES, CeleryCluster, january, new_cluster
from servers import S3, PostgreSQL, wait_until

pytestmark = [pytest.mark.slow_lane, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cluster(
    template: Path, s3: S3, postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryCluster]:
    """Airflow on Celery, with sources that have no day yet."""
    with new_cluster(template, s3, postgres, tmp_path_factory.mktemp("celery")) as started:
        yield started


def test_tasks_that_alternate_between_two_workers_release_the_bytes_of_a_local_run(
    cluster: CeleryCluster,
) -> None:
    cluster.sources.add_days(january(8, 9, 10))

    run = cluster.airflow.trigger(DAG)
    cluster.wait_for_run(run)

    assert cluster.executed_by(run) == QUEUES
    assert_same_bytes(cluster, cluster.project.releases()[-1], cluster.run_locally())
    published = cluster.airflow.task_result(run, "release.publish")
    assert published["release"] == cluster.project.releases()[-1]
    assert "headrace runs start flights" in cluster.log(run, "start_run")
    assert cluster.project.run_refs() == []


def test_a_worker_that_is_killed_in_a_task_is_replaced_by_the_other_one_and_the_bytes_are_the_same(
    cluster: CeleryCluster,
) -> None:
    killed = cluster.workers["two"]
    cluster.sources.add_days(january(11, 12, 13))
    run = cluster.airflow.trigger(DAG)
    cluster.wait_for(
        run, lambda tasks: any(task.name == "validate" and task.state == "success" for task in tasks), "to validate"
    )
    assert wait_until(lambda: bool(killed.journals()), 120)
    killed.freeze()
    written = [name for name in cluster.project.run_refs() if "/features/" in name]
    killed.kill()

    cluster.hand_queue("two", worker="one")
    cluster.wait_for_run(run)

    assert written == [], "the worker was killed before it had written a table"
    attempts = {task.name: task.attempt for task in cluster.airflow.tasks(run)}
    assert attempts["transform"] == 2
    assert cluster.executed_by(run) == {**dict.fromkeys(QUEUES, "one"), "tables.ingest": "two"}
    assert_same_bytes(cluster, cluster.project.releases()[-1], cluster.run_locally())
    assert cluster.airflow.task_result(run, "release.publish")["release"] == cluster.project.releases()[-1]
    assert cluster.project.run_refs() == []


def assert_same_bytes(cluster: CeleryCluster, release: str, local: str) -> None:
    """Two releases of the two projects have the same files with the same bytes."""
    files = cluster.project.released_files(release)

    assert files == cluster.local.released_files(local)
    assert any("/_manifest/" in path for path in files)
    assert any(path.startswith("data/features/") and path.endswith(".parquet") for path in files)
