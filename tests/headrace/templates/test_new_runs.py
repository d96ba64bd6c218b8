"""`headrace new`, then `headrace run`: from files, a bucket, SQLite and PostgreSQL, the first run works."""

import json
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import LiteralString

import pytest
from projects import Project
from servers import S3, PostgreSQL

from headrace.failpoints import KILLED

pytestmark = pytest.mark.slow

ROWS = 60


def line(number: int) -> str:
    time = f"2026-01-{number // 24 + 1:02}T{number % 24:02}:00:00Z"
    return f"{number},{'east' if number % 2 else 'west'},{time},{number % 7}"


def test_a_local_file_is_run_where_it_is_and_nothing_is_copied(project: Project, tmp_path: Path) -> None:
    sample = tmp_path / "orders.csv"
    sample.write_text("order_id,shop,ordered_at,amount\n" + "".join(f"{line(number)}\n" for number in range(ROWS)))

    output = project.headrace("new", "sales", "--from", str(sample), "--owner", "shops")
    run_output = project.headrace("run", "sales")

    assert "column shop" in output
    assert "one_of" in output
    assert "Nothing was uploaded" in output
    assert f"{ROWS} rows in, 0 rejected" in run_output
    assert 'owner="shops"' in (project.root / "pipelines/sales/__init__.py").read_text()
    assert "sales:\n    validate:\n    - orders\n" in (project.root / "headrace.lock").read_text()
    project.headrace("dvc-sync", "--check")
    project.headrace("dvc-sync", "--all")
    assert "sales-validate-orders" in (project.root / "dvc.yaml").read_text()


def test_objects_below_a_prefix_become_days_and_the_bucket_of_the_settings_is_not_named(
    project: Project, s3: S3
) -> None:
    bucket = s3.new_bucket()
    for day in (1, 2, 3):
        lines = "".join(f"{line(number)}\n" for number in range(24 * (day - 1), 24 * day))
        bucket.write(f"in/orders/2026-01-{day:02}.csv", f"order_id,shop,ordered_at,amount\n{lines}".encode())
    bucket.write("in/orders/README", b"not data")
    access = s3.variables
    own = {**access, "HEADRACE_BUCKET": bucket.name}

    output = project.headrace("new", "sales", "--from", f"s3://{bucket.name}/in/orders/", settings=access)
    named = (project.root / "pipelines/sales/sources/orders.py").read_text()
    project.headrace("new", "others", "--from", f"s3://{bucket.name}/in/orders", settings=own)
    unnamed = (project.root / "pipelines/others/sources/orders.py").read_text()

    assert f'location="s3://{bucket.name}/in/orders/"' in named
    assert 'location="in/orders/"' in unnamed
    assert "within=TimeBounds(timedelta(0), timedelta(days=1))" in named
    assert "1 others match nothing" in output
    for dataset in ("sales", "others"):
        run_output = project.headrace("run", dataset, settings=own)
        assert f"validated/{dataset}/orders: 3 computed" in run_output
        assert "72 rows in, 0 rejected" in run_output


def test_a_table_of_sqlite_gets_a_variable_of_its_own_in_env(project: Project, tmp_path: Path) -> None:
    file = tmp_path / "shop.db"
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE orders (order_id INTEGER PRIMARY KEY, shop TEXT, ordered_at TIMESTAMP, amount REAL,"
            " updated_at TIMESTAMP)"
        )
        values = [(*line(number).split(","), "2026-02-01T00:00:00Z") for number in range(ROWS)]
        connection.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?)", values)
    connection.close()

    output = project.headrace("new", "sales", "--from", str(file), "--table", "orders")
    run_output = project.headrace("run", "sales")

    env = project.root / ".env"
    code = (project.root / "pipelines/sales/sources/orders.py").read_text()
    assert env.read_text() == f"SALES_DATABASE_URL=sqlite:///{file}\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    assert 'key=("order_id",)' in code
    assert 'watermark="updated_at"' in code
    assert 'partition_by="ordered_at"' in code
    assert 'database="SALES_DATABASE_URL"' in code
    assert "validated/sales/orders: 3 computed" in run_output
    assert f"{ROWS} rows in, 0 rejected" in run_output
    assert "SALES_DATABASE_URL" in output


def test_an_env_that_others_could_read_becomes_private_and_keeps_its_other_variables(
    project: Project, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (order_id INTEGER PRIMARY KEY, shop TEXT)")
    connection.close()
    env = project.root / ".env"
    env.write_text("HEADRACE_BUCKET=shop\nSALES_DATABASE_URL=sqlite:///old.db\n")
    env.chmod(0o644)

    project.headrace("new", "sales", "--from", f"sqlite:///{tmp_path}/shop.db#orders")

    assert env.read_text() == f"HEADRACE_BUCKET=shop\nSALES_DATABASE_URL=sqlite:///{tmp_path}/shop.db\n"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


KILLED_IN_FAILPOINT = """
import os, sys
from headrace import failpoints
from headrace.cli import app

os.umask(0)
failpoints.enable(int(sys.argv[1]), "half")
app(sys.argv[2:])
"""


@pytest.mark.slow_lane
def test_wherever_new_is_killed_no_file_with_the_database_s_address_can_be_read_by_others(
    project: Project, tmp_path: Path
) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (order_id INTEGER PRIMARY KEY, shop TEXT)")
    connection.close()
    address = f"sqlite:///{tmp_path}/shop.db"
    failpoints_reached, permissions = [], []

    for number in range(1, 20):
        new = [sys.executable, "-c", KILLED_IN_FAILPOINT, str(number), "new", "sales", "--from", f"{address}#orders"]
        done = subprocess.run(new, cwd=project.root, capture_output=True, text=True, check=False)
        left = [path for path in project.root.glob("*.env*") if "SALES_DATABASE" in path.read_text()]
        permissions += [stat.S_IMODE(path.stat().st_mode) for path in left]
        if done.returncode != KILLED:
            break
        failpoints_reached.append(done.stderr.strip().rpartition(": ")[2])

    assert {"write .env", "rename .env", "rename sales"} <= set(failpoints_reached), done.stderr
    assert set(permissions) == {0o600}


def test_a_table_of_postgresql_is_declared_with_its_key_and_types_and_no_password(
    project: Project, postgres: PostgreSQL
) -> None:
    address = create_database(
        postgres,
        "CREATE SCHEMA crm",
        "CREATE TABLE crm.orders (shop text, order_id bigint, ordered_at timestamptz NOT NULL, price numeric(10,2),"
        " tags text[], paid boolean, due date, at_hour time, updated_at timestamptz, PRIMARY KEY (shop, order_id))",
        "INSERT INTO crm.orders SELECT CASE i % 2 WHEN 0 THEN 'west' ELSE 'east' END, i, '2026-01-01Z'::timestamptz"
        " + i * interval '1 hour', i % 7 + 0.5, ARRAY['east'], i % 3 = 0, date '2026-01-01' + i / 24, '10:00', now()"
        " FROM generate_series(0, 59) i",
    )
    access = {"HEADRACE_DATABASE_URL": address}

    output = project.headrace("new", "sales", "--from", f"{address}#crm.orders", settings=access)
    run_output = project.headrace("run", "sales", settings=access)

    code = (project.root / "pipelines/sales/sources/orders.py").read_text()
    assert 'table="crm.orders"' in code
    assert 'key=("shop", "order_id")' in code
    assert "database=" not in code, "it is the project's own"
    assert not (project.root / ".env").exists()
    assert "price = dy.Decimal(38, 2)" in code
    assert "tags = dy.List(dy.String(nullable=True))" in code
    assert "ordered_at = utc_time(within=TimeBounds(timedelta(0), timedelta(days=1)))" in code
    assert f"{ROWS} rows in, 0 rejected" in run_output
    assert postgres.password not in output + code


def test_types_of_postgresql_that_arrow_lacks_stay_text(project: Project, postgres: PostgreSQL) -> None:
    address = create_database(
        postgres,
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        'CREATE TABLE "My Readings" ("Reading ID" uuid PRIMARY KEY, mood mood, payload jsonb, flags bit(3),'
        " wait interval, counts int[], total numeric(40, 5), big bigint, unknown numeric, updated_at timestamptz)",
        """INSERT INTO "My Readings" SELECT gen_random_uuid(), 'ok', '{"a": 1}', '101', '1 day', '{1,2}',"""
        " 12345678901234567890123456789012345.5, 9223372036854775807, NULL, now() FROM generate_series(1, 30)",
    )
    access = {"HEADRACE_DATABASE_URL": address}

    project.headrace("new", "sensors", "--from", f"{address}#My Readings", settings=access)
    run_output = project.headrace("run", "sensors", settings=access)

    code = (project.root / "pipelines/sensors/sources/my_readings.py").read_text()
    assert 'table="My Readings"' in code
    assert 'reading_id = dy.String(alias="Reading ID")' in code
    assert "flags = dy.String()" in code
    assert "total = dy.String()" in code, "no decimal type of 40 digits, and a float would lose some"
    assert "counts = dy.List(dy.Int32(nullable=True))" in code
    assert "big = dy.Int64()" in code
    assert 'key=("reading_id",)' in code, "updated_at does not lead: two versions of a row would have two keys"
    assert "30 rows in, 0 rejected" in run_output


def test_infinite_values_of_postgresql_are_announced_and_their_rows_rejected(
    project: Project, postgres: PostgreSQL
) -> None:
    address = create_database(
        postgres,
        "CREATE TABLE terms (id int PRIMARY KEY, ends_at timestamptz, score float8)",
        "INSERT INTO terms SELECT i, '2026-01-09Z', i FROM generate_series(1, 30) i",
        "INSERT INTO terms VALUES (31, 'infinity', 1), (32, '2026-01-09Z', 'NaN')",
    )
    access = {"HEADRACE_DATABASE_URL": address}

    output = project.headrace("new", "terms", "--from", f"{address}#terms", settings=access)
    run_output = project.headrace("run", "terms", settings=access)

    assert "ends_at holds 1 value such as NaN or infinity" in output
    assert "score holds 1 value such as NaN or infinity" in output
    assert "30 rows, 32 rows in, 2 rejected" in run_output


def test_an_empty_table_and_one_without_columns(project: Project, postgres: PostgreSQL) -> None:
    address = create_database(
        postgres,
        "CREATE TABLE orders (order_id int PRIMARY KEY, ordered_at timestamptz, note text)",
        "CREATE TABLE nothing ()",
    )
    access = {"HEADRACE_DATABASE_URL": address}

    project.headrace("new", "sales", "--from", f"{address}#orders", settings=access)
    run_output = project.headrace("run", "sales", settings=access)
    refused = project.headrace("new", "others", "--from", f"{address}#nothing", fails=True, settings=access)

    code = (project.root / "pipelines/sales/sources/orders.py").read_text()
    assert "order_id = dy.Int64(nullable=True)" in code, "the database knows the type"
    assert "ordered_at = utc_time(nullable=True)" in code
    assert "0 rows in, 0 rejected" in run_output
    assert "table nothing has no columns" in refused


def test_a_refused_table_leaves_nothing_behind(project: Project, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("CREATE TABLE orders (shop TEXT)")
        connection.executemany("INSERT INTO orders VALUES (?)", [("east",)] * 10)
    connection.close()

    output = project.headrace("new", "sales", "--from", f"sqlite:///{tmp_path}/shop.db#orders", fails=True)

    assert "expected columns that identify a row" in output
    assert not (project.root / ".env").exists()
    assert not (project.root / "pipelines/sales").exists()


def test_a_file_with_a_header_alone_runs(project: Project, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("order_id,amount\n")

    project.headrace("new", "sales", "--from", str(tmp_path / "orders.csv"))

    assert "0 rows in, 0 rejected" in project.headrace("run", "sales")


def test_what_was_assumed_is_json_for_programs(project: Project, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("order_id,amount\n1,2\n2,3\n")

    found = json.loads(project.headrace("new", "sales", "--from", str(tmp_path / "orders.csv"), "--json"))

    assert found["name"] == "sales"
    assert {"subject", "assumed", "evidence", "edit"} == set(found["assumptions"][0])


def test_a_dataset_that_is_there_and_a_folder_that_is_no_project_are_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("order_id,amount\n1,2\n")
    before = (project.root / "pipelines/bikes/__init__.py").read_text()

    output = project.headrace("new", "bikes", "--from", str(tmp_path / "orders.csv"), fails=True)
    outside = Project(tmp_path).headrace("new", "sales", "--from", "orders.csv", fails=True)

    assert "pipelines/bikes exists. Nothing was written" in output
    assert (project.root / "pipelines/bikes/__init__.py").read_text() == before
    assert "is not a project" in outside
    assert "headrace init NAME" in outside


def create_database(postgres: PostgreSQL, *statements: LiteralString) -> str:
    """Create a database and run the statements in it; its address."""
    database = postgres.new_database()
    with postgres.connect(database) as connection:
        for statement in statements:
            connection.execute(statement)
    return postgres.address(database)
