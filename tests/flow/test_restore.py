"""Backup and restore: from copies of git and of the DVC remote alone, on an empty machine, to served features.

The commands are those of the page on operations, run as they stand. Only the source systems survive. Lost are the git
host, the bucket of the DVC remote, the workspace with its cache, Feast's registry and the online store.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from annotated_flights import submit_answers
from doc_pages import code_blocks
from flight_sites import FlightSites, Site
from servers import S3, PostgreSQL
from workspaces import REPOSITORY, git

from headrace.storage.dvc.objects import object_key
from headrace.storage.s3.bucket import Bucket
from headrace.storage.s3.objects import ObjectMeta
from headrace.storage.table_store import TableStore

pytestmark = [pytest.mark.slow_lane, pytest.mark.timeout(900)]

PAGE = (REPOSITORY / "docs/operations.md").read_text("utf-8")
SECTION = PAGE.partition("## Backup and restore\n")[2].partition("\n## ")[0]
BACK_UP, RESTORE, CHECK, SERVE, WITHDRAW = code_blocks(SECTION, "sh")
PUSH_FROM_A_CLONE = ("main", "--tags")

DAYS = [date(2013, 1, day) for day in range(1, 6)]
FEATURES = "features/flights/carrier_delays"


@dataclass(frozen=True)
class Company:
    """A site with three releases, each backed up, and what it answered before it was lost.

    Attributes:
        site: The site.
        bundles: The backup of git after each release.
        copies: The bucket that the remote was copied to after each release.
        sites: Makes empty sites.
        trained: Release → the training table of `requests.parquet`.
        served: What the online store answered.
    """

    site: Site
    bundles: tuple[Path, ...]
    copies: tuple[Bucket, ...]
    sites: FlightSites
    trained: Mapping[str, bytes]
    served: Any

    def restore(self, name: str, *, git_after: int = 3, bucket_after: int = 3) -> Site:
        """A new site, restored as the page says from the backups that were made after these releases."""
        site = self.sites.new(name)
        site.shell(
            RESTORE, site.home,
            BACKUP=f"s3:{self.copies[bucket_after - 1].name}/dvc", OBJECTS=f"s3:{site.remote.name}/dvc",
            BUNDLE=self.bundles[git_after - 1], GIT_REMOTE=site.origin, DVC_REMOTE=f"s3://{site.remote.name}/dvc",
        )  # fmt: skip
        return site


@pytest.fixture(scope="module")
def company(template: Path, s3: S3, postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Company:
    folder = tmp_path_factory.mktemp("restore")
    sites = FlightSites.create(folder, s3, postgres)
    sources, site = sites.sources, sites.new("lost")
    git(template, "push", "--quiet", str(site.origin), "HEAD:main")
    git(site.home, "clone", "--quiet", str(site.origin), "project")
    site.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{site.remote.name}/dvc")
    backups = folder / "backups"
    backups.mkdir()
    bundles, copies = list[Path](), list[Bucket]()

    def back_up() -> None:
        copies.append(s3.new_bucket())
        objects, backup = f"s3:{site.remote.name}/dvc", f"s3:{copies[-1].name}/dvc"
        before = set(backups.glob("*.bundle"))
        site.shell(BACK_UP, backups, GIT_REMOTE=site.origin, OBJECTS=objects, BACKUP=backup)
        [bundle] = set(backups.glob("*.bundle")) - before
        bundles.append(bundle.rename(backups / f"after-{len(bundles) + 1}.bundle"))

    sources.add_days(DAYS[:3])
    site.headrace("run", "flights", "--release")
    back_up()
    submit_answers(TableStore.at(site.project))
    site.headrace("label", "aggregate", "flights")
    site.headrace("release", "flights")
    back_up()
    sources.add_days(DAYS[3:4])
    sources.correct_day(DAYS[1])
    site.headrace("run", "flights", "--release")
    site.headrace("publish", "flights")
    sources.add_days(DAYS[4:])
    site.headrace("ingest", "flights", "--run", "nightly")
    back_up()

    rows = TableStore.at(site.project).scan("validated/flights/flights")
    asked = rows.select("carrier", "origin", "tailnum", pl.col("scheduled_at").alias("event_timestamp")).drop_nulls()
    asked.collect().write_parquet(folder / "requests.parquet")
    asked.drop("event_timestamp").tail(50).collect().write_parquet(folder / "entities.parquet")
    trained = {release: site.retrieve(release) for release in ("flights/1", "flights/2", "flights/3")}
    return Company(site, tuple(bundles), tuple(copies), sites, trained, site.serve())


@pytest.fixture(scope="module")
def restored(company: Company) -> tuple[Site, str]:
    """The drill up to the tables, and what its checks printed: an empty site to which the page was applied."""
    site = company.restore("new")
    return site, site.shell(CHECK, site.project)


def test_every_object_of_every_release_and_run_is_found_and_nothing_is_to_be_computed(
    restored: tuple[Site, str],
) -> None:
    _, printed = restored

    assert "FAIL" not in printed
    assert re.search(r"ok   objects: \d+ referenced by 7 revisions, hashed on both sides", printed)
    assert "3 tags on origin" in printed
    assert len(re.findall(r"^\S+/flights/\S+: up to date", printed, re.MULTILINE)) == 9


def test_tables_and_history_are_the_bytes_that_were_lost(company: Company, restored: tuple[Site, str]) -> None:
    site, _ = restored

    assert site.tables() == company.site.tables()
    assert sum("annotations/flights/delay_cause/" in name for name in site.tables()) > 1
    log = ("log", "--format=%H %an %ad %s", "--tags")
    assert git(site.project, *log) == git(company.site.project, *log)


@pytest.mark.parametrize("release", ["flights/1", "flights/2", "flights/3"])
def test_a_release_of_any_age_gives_the_same_training_table(
    company: Company, restored: tuple[Site, str], release: str
) -> None:
    site, _ = restored

    assert site.retrieve(release) == company.trained[release]


def test_the_release_is_served_from_an_empty_store_and_the_next_run_computes_only_what_is_new(
    company: Company, restored: tuple[Site, str]
) -> None:
    site, _ = restored

    printed = site.shell(SERVE, site.project)

    assert "departure_delay serves flights/3" in printed
    assert "online: flights/3 in slot" in printed
    assert "features/flights/carrier_delays: 1 computed (2013-01-05), 4 reused" in printed
    assert "flights/4 released" in printed
    assert site.serve() == company.served


def test_a_run_that_was_not_finished_goes_on_elsewhere(company: Company) -> None:
    site = company.restore("unfinished")

    printed = site.headrace("run", "flights", "--run", "nightly", "--release")

    assert "raw/flights/flights: 5 listed, nothing new" in printed, "the day that the lost machine had read"
    assert "features/flights/carrier_delays: 1 computed (2013-01-05), 4 reused" in printed
    assert "flights/4 released" in printed


def test_where_git_is_older_than_the_bucket_the_objects_stay_and_a_surviving_clone_brings_the_release_back(
    company: Company,
) -> None:
    site = company.restore("older-git", git_after=2)

    checked = site.headrace("doctor")
    collected = site.headrace("gc", "--remote", "--no-dry-run")
    git(company.site.project, "push", "--quiet", str(site.origin), *PUSH_FROM_A_CLONE)
    site.run("git", "pull", "--quiet", "--tags")

    assert "2 tags on origin" in checked
    assert "remote: 0 objects deleted" in collected, "they are younger than a day"
    assert "FAIL" not in site.headrace("doctor", "--deep")
    assert site.retrieve("flights/3") == company.trained["flights/3"]


def test_where_git_is_older_than_the_bucket_the_lost_release_is_computed_again(company: Company) -> None:
    site = company.restore("older-git-alone", git_after=2)

    printed = site.headrace("run", "flights", "--release")

    assert "features/flights/carrier_delays: 4 computed" in printed
    assert "flights/3 released" in printed
    assert "FAIL" not in site.headrace("doctor")


def test_where_the_bucket_is_older_than_git_the_releases_that_are_not_whole_are_named_and_withdrawn(
    company: Company,
) -> None:
    site = company.restore("older-bucket", bucket_after=2)

    checked = site.headrace("doctor", "--repair", fails=True)
    stuck = site.headrace("plan", "flights", fails=True)
    site.shell(WITHDRAW, site.project)
    printed = site.headrace("run", "flights", "--release")

    assert "(data/features/flights/carrier_delays of flights/3, HEAD" in checked
    assert "flights/2" not in checked
    assert "git revert --no-edit RELEASE" in checked
    assert "is not on the remote" in stuck
    assert "features/flights/carrier_delays: 4 computed (2013-01-02" in printed
    assert "flights/3 released" in printed
    assert "FAIL" not in site.headrace("doctor", "--deep")
    assert site.retrieve("flights/2") == company.trained["flights/2"]
    assert any("annotations/flights/delay_cause/" in name for name in site.tables())


def test_an_object_that_was_damaged_in_the_copy_is_named_and_computed_again(company: Company) -> None:
    site = company.restore("damaged")
    md5 = company.site.table(FEATURES, "flights/3")["2013-01-04"]
    damage_object(site.remote, md5)

    checked = site.headrace("doctor", "--deep", fails=True)
    repaired = site.headrace("doctor", "--deep", "--repair")

    assert f"FAIL {md5} (data/{FEATURES}/2013-01-04.parquet of flights/3" in checked
    assert "1 found, 0 repaired" in checked
    assert f"recomputed by transform {FEATURES} 2013-01-04" in repaired
    assert "FAIL" not in site.headrace("doctor", "--deep")


def test_a_damaged_object_does_not_replace_the_good_one_in_the_backup(company: Company) -> None:
    site = company.restore("damaged-before-the-copy")
    md5 = company.site.table(FEATURES, "flights/3")["2013-01-04"]
    good = company.copies[2].read(head(company.copies[2], md5))
    damage_object(site.remote, md5)
    copy = BACK_UP.splitlines()[-1]

    printed = site.shell(
        copy, site.home, OBJECTS=f"s3:{site.remote.name}/dvc", BACKUP=f"s3:{company.copies[2].name}/dvc", fails=True
    )

    assert md5[2:] in printed
    assert company.copies[2].read(head(company.copies[2], md5)) == good


def damage_object(bucket: Bucket, md5: str) -> None:
    """Replace an object by other bytes of the same size."""
    found = head(bucket, md5)
    bucket.write(found.key, b"x" * found.size)


def head(bucket: Bucket, md5: str) -> ObjectMeta:
    """The object of the DVC remote with this hash."""
    found = bucket.head(f"dvc/{object_key(md5)}")
    assert found
    return found
