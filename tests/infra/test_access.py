"""The roles of `infra/terraform/access.tf` allow what the page on operations tells people to run, and nothing more.

Each command runs against a bucket with versions. The requests that it sends are recorded, translated into the actions
that S3 checks, and compared with the policies. The databases, too, give no more rights than the page names.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import polars as pl
import psycopg
import pytest
from flight_sites import FlightSites, Site
from psycopg import sql
from servers import S3, PostgreSQL, Relay
from workspaces import git

from headrace.storage.table_store import TableStore

pytestmark = [pytest.mark.slow_lane, pytest.mark.timeout(900)]

ACCESS = (Path(__file__).parents[2] / "infra/terraform/access.tf").read_text()
REQUEST = re.compile(rb"(GET|HEAD|PUT|POST|DELETE) (/[^ \r\n]*) HTTP/1\.1\r\n")
RESOURCES = {
    "aws_s3_bucket.lake.arn": "bucket",
    "local.source_objects": "sources",
    "local.remote_objects": "remote",
    "local.log_objects": "logs",
}
NOT_SEEN = {
    ("s3:GetBucketLocation", "bucket"),  # clients ask for it where the region is not set
    ("s3:ListMultipartUploadParts", "remote"),  # resumes a large upload
    ("s3:GetObjectVersion", "sources"),  # an object that is replaced while it is read
    ("s3:GetObject", "logs"),
    ("s3:PutObject", "logs"),  # Airflow's
}
"""What the policies allow and the commands here do not send."""

Actions = set[tuple[str, str]]
"""What S3 checks: the action, and what it is about: the bucket, or objects below a prefix."""


def policy(role: str) -> Actions:
    """What a role may do, as written in the file, with the roles that it includes."""
    block = ACCESS.split(f'data "aws_iam_policy_document" "{role}" {{', 1)[1].split("\n}\n", 1)[0]
    allowed: Actions = set()
    for statement in re.findall(r"\n  statement \{\n(.*?)\n  \}", block, re.DOTALL):
        actions, resources = (re.search(rf"{name}\s+= \[(.*)\]", statement) for name in ("actions", "resources"))
        assert actions
        assert resources
        places = [RESOURCES[name] for name in re.split(r",\s*", resources[1])]
        allowed |= {(action, place) for action in re.findall(r'"([^"]+)"', actions[1]) for place in places}
    for included in re.findall(r"source_policy_documents = \[data\.aws_iam_policy_document\.(\w+)\.json\]", block):
        allowed |= policy(included)
    return allowed


def checked_action(method: str, target: str, places: dict[str, str]) -> tuple[str, str]:
    """The action that S3 checks for a request, and where."""
    parts = urlsplit(target)
    bucket, _, key = parts.path.lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    if not key:
        listed = {"versions": "s3:ListBucketVersions", "uploads": "s3:ListBucketMultipartUploads"}
        named = [action for name, action in listed.items() if name in query]
        if method == "POST":
            return "s3:DeleteObject", places[bucket]
        return (named or ["s3:GetBucketLocation" if "location" in query else "s3:ListBucket"])[0], "bucket"
    if method in ("GET", "HEAD"):
        return "s3:GetObjectVersion" if "versionId" in query else "s3:GetObject", places[bucket]
    if method == "DELETE":
        return "s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", places[bucket]
    return "s3:PutObject", places[bucket]


@dataclass
class Recorder:
    """Records what commands ask of S3.

    Attributes:
        relay: In front of the server.
        places: Bucket → what is in it.
        actions: Role → what its commands did.
    """

    relay: Relay
    places: dict[str, str]
    actions: dict[str, Actions] = field(default_factory=dict)

    @contextmanager
    def role(self, name: str) -> Iterator[None]:
        """Count what happens in the block as done by a role."""
        self.relay.received = b""
        yield
        sent = REQUEST.findall(self.relay.received)
        assert sent
        here = {checked_action(method.decode(), target.decode(), self.places) for method, target in sent}
        self.actions.setdefault(name, set()).update(action for action in here if action[1] != "backup")


@pytest.fixture(scope="module")
def recorded(
    template: Path, moto_s3: S3, postgres: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Actions]]:
    """Role → what the commands did that the page gives to it."""
    relay = Relay(moto_s3.port)
    sites = FlightSites.create(
        tmp_path_factory.mktemp("access"), replace(moto_s3, port=relay.port), postgres, versioned=True
    )
    site = sites.new("lake")
    backup = sites.s3.new_bucket().name
    places = {sites.settings["HEADRACE_BUCKET"]: "sources", site.remote.name: "remote", backup: "backup"}
    recorder = Recorder(relay, places)
    site = replace(site, environment={**site.environment, **least_database_rights(postgres, site.environment)})
    git(template, "push", "--quiet", str(site.origin), "HEAD:main")
    clone(site, "project")
    sites.sources.add_days([date(2013, 1, 1), date(2013, 1, 2)])
    with recorder.role("pipeline"):
        site.headrace("run", "flights", "--release")
        site.headrace("publish", "flights")
    sites.sources.correct_day(date(2013, 1, 2))
    with recorder.role("pipeline"):
        site.headrace("ingest", "flights", "--full-refresh")
        site.headrace("run", "flights", "--release", "--run", "nightly")
        site.headrace("publish", "flights")
        site.headrace("lineage", "flights", "--table", "features/carrier_delays", "--partition", "2013-01-02")
    requests = (
        TableStore.at(site.project).scan("validated/flights/flights").select("carrier", "origin", "tailnum").head(9)
    )
    requests.with_columns(event_timestamp=pl.datetime(2013, 1, 2, time_zone="UTC")).collect().write_parquet(
        sites.folder / "requests.parquet"
    )
    with recorder.role("reader"):
        researcher = replace(site, home=site.home.with_name("researcher"))
        researcher.home.mkdir()
        clone(researcher, "project")
        researcher.run("dvc", "pull")
        researcher.headrace("doctor", "--deep")
        researcher.run(
            "headrace", "retrieve", "flights", "--release", "flights/1",
            "--requests", str(sites.folder / "requests.parquet"), "--out", str(researcher.home / "rows.parquet"),
        )  # fmt: skip
        researcher.run("rclone", "copy", "--checksum", "--immutable", f"s3:{site.remote.name}/dvc", f"s3:{backup}/dvc")
    damage(moto_s3, site)
    with recorder.role("pipeline"):
        site.headrace("doctor", "--deep", "--repair")
    key = f"dvc/files/md5/ab/{'c' * 30}"
    moto_s3.client.put_object(Bucket=site.remote.name, Key=key, Body=b"nobody names this")
    keep_one_release(site)
    with recorder.role("maintenance"):
        site.headrace("prune", "flights", "--no-dry-run")
        assert git(site.origin, "tag", "--list", "flights/*") == "flights/2"
        site.headrace("gc", "--remote", "--no-dry-run", "--hours", "0")
    assert key not in {item["Key"] for item in moto_s3.client.list_objects_v2(Bucket=site.remote.name)["Contents"]}
    yield recorder.actions
    relay.close()


def clone(site: Site, name: str) -> None:
    git(site.home, "clone", "--quiet", str(site.origin), name)
    site.run("dvc", "remote", "modify", "--local", "storage", "url", f"s3://{site.remote.name}/dvc")


def keep_one_release(site: Site) -> None:
    """Declare and push a retention policy that keeps the latest release alone."""
    git(site.project, "pull", "--quiet")
    declaration = site.project / "pipelines/flights/__init__.py"
    text, count = re.subn(r"retention=Retention\(.*?\)", "retention=Retention(keep_last=1)", declaration.read_text())
    assert count == 1
    declaration.write_text(text)
    git(site.project, "commit", "--quiet", "--all", "--message", "Keep one release")
    git(site.project, "push", "--quiet", "origin", "HEAD:main")


def damage(s3: S3, site: Site) -> None:
    """Damage what `doctor --repair` repairs: an object of a release, and an upload that nobody ended."""
    md5 = site.table("features/flights/carrier_delays", "flights/1")["2013-01-01"]
    key = f"dvc/files/md5/{md5[:2]}/{md5[2:]}"
    s3.client.put_object(Bucket=site.remote.name, Key=key, Body=b"damaged")
    s3.client.create_multipart_upload(Bucket=site.remote.name, Key=f"dvc/files/md5/cd/{'e' * 30}")


def least_database_rights(postgres: PostgreSQL, environment: Mapping[str, str]) -> dict[str, str]:
    """Settings with accounts that have the rights that the page names: to read the sources, to own Feast's database."""
    names = {name: environment[name].rpartition("/")[2] for name in ("HEADRACE_DATABASE_URL", "FEAST_REGISTRY_URL")}
    sources, registry = names.values()
    reader, owner = f"reader_{sources}", f"owner_{registry}"
    with postgres.connect(sources) as connection:
        for account in (reader, owner):
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'word'").format(sql.Identifier(account))
            connection.execute(create)
        _execute(connection, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        _execute(connection, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}")
        _execute(connection, f"ALTER DATABASE {registry} OWNER TO {owner}")
    accounts = {"HEADRACE_DATABASE_URL": reader, "FEAST_REGISTRY_URL": owner}
    return {name: re.sub(r"//[^@]+@", f"//{accounts[name]}:word@", environment[name]) for name in names}


def _execute(connection: "psycopg.Connection", statement: str) -> None:
    connection.execute(statement.encode())


@pytest.mark.parametrize("role", ["pipeline", "reader", "maintenance"])
def test_a_role_may_do_what_its_commands_do(recorded: dict[str, Actions], role: str) -> None:
    assert sorted(recorded[role] - policy(role)) == []


def test_a_role_may_do_nothing_that_no_command_needs(recorded: dict[str, Actions]) -> None:
    needed = set.union(*recorded.values()) | NOT_SEEN

    assert sorted(policy("maintenance") - needed) == []
    assert sorted(policy("reader") - recorded["reader"] - NOT_SEEN) == []


def test_only_maintenance_deletes_and_nobody_deletes_a_version() -> None:
    assert ("s3:DeleteObject", "remote") in policy("maintenance")
    for role in ("pipeline", "reader"):
        assert not [action for action, _ in policy(role) if "Delete" in action]
    assert "DeleteObjectVersion" not in ACCESS
