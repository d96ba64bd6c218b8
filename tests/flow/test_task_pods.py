"""The refresh DAG's commands, each in a pod of its own: `infra/helm/task-pod.yaml` run without a cluster.

A pod clones the project over SSH with a deploy key, without the contents of old files, onto an empty disk, and its disk
is gone with it. Nothing passes from one to the next but by git and the DVC remote.
"""

from datetime import date
from pathlib import Path

import pytest
import yaml
from flight_sites import FlightSites, Site
from online_stores import postgresql_store
from servers import S3, PostgreSQL
from task_pods import TaskPods
from workspaces import git

pytestmark = [pytest.mark.slow_lane, pytest.mark.timeout(600)]

RUN = "scheduled__2013-01-03T06:00:00+00:00"
COMMANDS = (
    f"headrace runs start flights --run {RUN} --json",
    f"headrace ingest flights --run {RUN} --json",
    f"headrace validate flights --run {RUN} --json",
    f"headrace transform flights --run {RUN} --json",
    f"headrace release flights --run {RUN} --json",
    "headrace publish flights --json",
)
"""Those of the tasks of the DAG, as its operators render them."""


@pytest.fixture
def sites(s3: S3, postgres: PostgreSQL, tmp_path: Path) -> FlightSites:
    made = FlightSites.create(tmp_path, s3, postgres)
    made.sources.add_days([date(2013, 1, 1), date(2013, 1, 2)])  # few enough partitions to need no Dask cluster
    return made


def push_project(site: Site, template: Path, postgres: PostgreSQL) -> None:
    """Push the project to the site's git host: its DVC remote is the site's, its online store a server."""
    git(site.home, "clone", "--quiet", str(template), "project")
    postgresql_store(postgres, postgres.port).configure(site.project)
    site.run("dvc", "remote", "modify", "storage", "url", f"s3://{site.remote.name}/dvc")
    git(site.project, "commit", "--quiet", "--all", "--message", "Where this site has its data")
    git(site.project, "push", "--quiet", str(site.origin), "HEAD:main")
    git(site.project, "remote", "set-url", "origin", str(site.origin))


def test_pods_that_share_nothing_release_and_publish_what_one_machine_does(
    sites: FlightSites, template: Path, postgres: PostgreSQL, tmp_path: Path
) -> None:
    site, machine = sites.new("cluster"), sites.new("machine")
    for place in (site, machine):
        push_project(place, template, postgres)
    git(site.origin, "config", "uploadpack.allowFilter", "true")
    pods = TaskPods(tmp_path, site.origin, {**site.environment, "DASK_SCHEDULER_ADDRESS": ""})

    printed = [pods.run(command.split()) for command in COMMANDS]
    machine.headrace("run", "flights", "--release")

    assert '"flights/1"' in printed[4]
    assert '"release": "flights/1"' in printed[5]
    assert records(site.origin) == records(machine.origin)
    assert git(site.origin, "for-each-ref", "refs/headrace") == "", "the run ended with its release"


def test_the_clone_of_a_pod_has_no_contents_of_old_files(
    sites: FlightSites, template: Path, postgres: PostgreSQL, tmp_path: Path
) -> None:
    site = sites.new("cluster")
    push_project(site, template, postgres)
    (site.project / "README.md").write_text("something else")
    git(site.project, "commit", "--quiet", "--all", "--message", "Change a file")
    git(site.project, "push", "--quiet", "origin", "HEAD:main")
    git(site.origin, "config", "uploadpack.allowFilter", "true")
    pods = TaskPods(tmp_path, site.origin, site.environment)

    missing = pods.run(["git", "rev-list", "--objects", "--all", "--missing=print"])

    assert f"?{git(site.origin, 'rev-parse', 'main:README.md')}" not in missing
    assert f"?{git(site.origin, 'rev-parse', 'main~1:README.md')}" in missing


def records(origin: Path) -> dict[str, object]:
    """What the release records of the tables: path → hash."""
    lock = yaml.safe_load(git(origin, "show", "flights/1:dvc.lock"))
    outs = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage["outs"]}
    raw = git(origin, "ls-tree", "-r", "--name-only", "flights/1", "data").splitlines()
    return {**outs, **{name: git(origin, "show", f"flights/1:{name}") for name in raw}}
