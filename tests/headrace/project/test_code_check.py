"""`headrace check` names what a fingerprint cannot follow: dynamic imports, and files that code opens undeclared."""

from pathlib import Path

import pytest

from headrace.project.code_check import check_dataset, check_file
from headrace.project.loading import dataset_names, load_dataset

NAME = "pipelines/sales/sources/orders.py"


def findings(root: Path, code: str, declared: tuple[str, ...] = ()) -> list[str]:
    file = root / NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(code)
    return [str(found) for found in check_file(root, NAME, declared)]


@pytest.mark.parametrize("name", dataset_names())
def test_the_datasets_of_this_project_read_nothing_that_no_fingerprint_follows(name: str) -> None:
    assert check_dataset(load_dataset(name)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import importlib\nmodule = importlib.import_module('pipelines.' + x)\n",
        "from importlib import import_module\nmodule = import_module(x)\n",
        "\nmodule = __import__(x)\n",
        "def f():\n    exec(text)\n",
    ],
)
def test_a_dynamic_import_is_named_with_file_and_line(tmp_path: Path, code: str) -> None:
    (found,) = findings(tmp_path, code)

    assert found.startswith(f"{NAME}:2: ")
    assert "loads code that no fingerprint follows" in found


@pytest.mark.parametrize(
    "code",
    [
        "from pathlib import Path\nZONES = (Path(__file__).parent / 'zones.csv').read_text()\n",
        "from pathlib import Path\nHERE = Path(__file__).resolve().parent\ndef f():\n    return open(HERE / 'zones.csv')\n",  # noqa: E501
        "import pathlib\nimport polars as pl\nZ = pl.read_csv(pathlib.Path(__file__).with_name('zones.csv'))\n",
    ],
)
def test_a_file_that_code_opens_is_named_until_it_is_declared(tmp_path: Path, code: str) -> None:
    (found,) = findings(tmp_path, code)

    assert "opens pipelines/sales/sources/zones.csv, which no `files=(…)` declares" in found
    assert findings(tmp_path, code, ("pipelines/sales/sources/zones.csv",)) == []


def test_a_path_below_the_project_is_held_to_the_declaration(tmp_path: Path) -> None:
    code = "ZONES = open('pipelines/sales/zones.csv')\n"

    assert "opens pipelines/sales/zones.csv" in findings(tmp_path, code)[0]
    assert findings(tmp_path, code, ("pipelines/sales/zones.csv",)) == []


def test_a_file_whose_name_only_a_run_knows_is_named(tmp_path: Path) -> None:
    (found,) = findings(tmp_path, "import os\n\nMODEL = open(os.environ['MODEL'])\n")

    assert "opens a file whose name is known only at run time" in found


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ('encoding="utf-99"', "expected the name of a text encoding such as 'utf-8' or 'cp1252', found 'utf-99'"),
        ('encoding="base64"', "expected the name of a text encoding"),
        ('encoding=""', "expected the name of a text encoding"),
        ('separator="||"', "expected one ASCII character other than a quote or a line end as `separator`, found '||'"),
        ('separator="§"', "expected one ASCII character"),
        ('separator=""', "expected one ASCII character"),
        ("'\"'", "expected one ASCII character"),
        ('nulls="NA"', "expected a tuple of texts as `nulls`, found 'NA'"),
        ("max_bytes=0", "expected a number of bytes above 0"),
    ],
)
def test_a_dialect_that_no_file_can_be_read_with_is_named(tmp_path: Path, arguments: str, problem: str) -> None:
    code = f"import headrace\n\ndef read(path):\n    return headrace.read_csv(path, headrace.CsvDialect({arguments}))\n"

    (found,) = findings(tmp_path, code)

    assert found.startswith(f"{NAME}:4: error: CsvDialect: ")
    assert problem in found


@pytest.mark.parametrize(
    "arguments", ["", 'separator=";"', 'separator="\\t"', 'encoding="UTF-16"', "encoding=NAME", "**ALL"]
)
def test_a_dialect_that_some_file_can_be_read_with_is_taken(tmp_path: Path, arguments: str) -> None:
    code = f"from headrace import CsvDialect\nDIALECT = CsvDialect({arguments})\n"

    assert findings(tmp_path, code) == []


@pytest.mark.parametrize(
    "code",
    [
        "def read(path):\n    return path.read_bytes()\n",
        "import polars as pl\n\ndef read(path):\n    return pl.read_csv(path)\n",
        "import io\nimport gzip\n\ndef read(path):\n    with gzip.open(path) as file:\n        return file.read()\n",
        "import json\nNUMBERS = json.loads('[1]')\n",
    ],
)
def test_what_the_engine_hands_in_may_be_opened(tmp_path: Path, code: str) -> None:
    assert findings(tmp_path, code) == []
