"""`headrace check --sources` asks real servers: what is wrong with one source hides nothing of the others."""

import re
import secrets
import subprocess
from dataclasses import replace

import pytest
from projects import Project
from servers import S3, PostgreSQL

MODULE = '''"""Sales."""
from dataclasses import replace

from minimal_dataset import SALES

from headrace.dataset import Dataset, ObjectSource, TableSource


def objects(name, bucket):
    pattern = rf"{name}/(?P<partition>.+)\\.csv"
    return replace(SALES, name=name, location=ObjectSource(f"{name}/", pattern, ".csv", bucket))


def table(name):
    return replace(SALES, name=name, location=TableSource(name, ("shop",), "at"), key=("shop",))


DATASET = Dataset(
    description="Sales.",
    owner="tests",
    sources=(
        objects("sales", "BUCKET"),
        objects("returns", "not-there"),
        table("no_such_table"),
        table("shops"),
        table("no_such_column"),
    ),
)
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> Project:
    """A dataset with objects in two buckets, of which one exists, and three tables, of which two do."""
    root, bucket = tmp_path_factory.mktemp("probe"), s3.new_bucket()
    bucket.write("sales/2026-01-01.csv", b"at,shop,amount\n2026-01-01T12:00:00Z,east,1\n")
    (root / "pipelines/tiny").mkdir(parents=True)
    (root / "pipelines/tiny/__init__.py").write_text(MODULE.replace("BUCKET", bucket.name))
    for name in ("pipelines/__init__.py", "dvc.yaml"):
        (root / name).touch()
    subprocess.run(["git", "-C", root, "init", "--quiet"], check=True)
    return Project(root)


@pytest.fixture(scope="module")
def database(postgres: PostgreSQL) -> str:
    """Name of a database that has two of the tables."""
    name = postgres.new_database()
    with postgres.connect(name) as connection:
        connection.execute("CREATE TABLE shops (shop text, at timestamptz, amount bigint)")
        connection.execute("CREATE TABLE no_such_column (shop text, at timestamptz)")
    return name


def probe(project: Project, s3: S3, address: str) -> dict[str, str]:
    """Source → what the check says about it."""
    settings = {**s3.variables, "HEADRACE_DATABASE_URL": address}
    printed = project.headrace("check", "tiny", "--sources", fails=True, settings=settings)
    assert "Traceback" not in printed
    found = re.findall(r"^\S+\.py:\d+: (error|warning): source (\w+): (.*)", printed, re.MULTILINE)
    return {source: f"{level}: {text}" for level, source, text in found}


def test_a_missing_bucket_table_and_column_are_named_and_hide_no_other(
    project: Project, s3: S3, postgres: PostgreSQL, database: str
) -> None:
    found = probe(project, s3, postgres.address(database))

    assert found["returns"].startswith("error: it cannot be listed: ")
    assert "there is no bucket not-there" in found["returns"]
    assert "has no table no_such_table. Correct the source's declaration, or create the table" in found["no_such_table"]
    assert found["shops"].startswith("warning: the table shops")
    assert "lists nothing" in found["shops"], "asked in a transaction of its own: the one before has failed"
    assert "column 'amount': the table has none of that name" in found["no_such_column"]
    assert "sales" not in found


def test_a_wrong_key_and_a_wrong_password_are_named_with_their_settings_and_never_shown(
    project: Project, s3: S3, postgres: PostgreSQL, database: str
) -> None:
    wrong = f"wrong-{secrets.token_hex(8)}"
    found = probe(project, replace(s3, secret_key=wrong), replace(postgres, password=wrong).address(database))

    assert "AWS_SECRET_ACCESS_KEY" in found["sales"]
    assert (
        "Check user and password in HEADRACE_DATABASE_URL (and 2 more: shops, no_such_column)" in found["no_such_table"]
    )
    assert wrong not in str(found)
