"""The public API is what `docs/api.md` lists, and importing the package loads nothing that is not used."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import headrace

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("polars", "pyarrow", "numpy", "pandas", "duckdb", "feast", "dask", "boto3", "pydantic", "sqlalchemy", "typer")


def documented() -> set[str]:
    """The names in the first column of the tables of `docs/api.md`."""
    text = (REPOSITORY / "docs/api.md").read_text("utf-8")
    return {*re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)} | {"__version__"}


def test_all_public_names_are_documented_and_all_documented_names_are_public() -> None:
    assert {*headrace.__all__} == documented()
    assert len(headrace.__all__) == len({*headrace.__all__})


@pytest.mark.parametrize("name", headrace.__all__)
def test_every_public_name_can_be_imported_and_is_what_it_is_called(name: str) -> None:
    value = getattr(headrace, name)

    assert not isinstance(value, type) or value.__name__ == name
    assert name in dir(headrace)


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = headrace.nothing
    assert not hasattr(headrace, "open_dataset")


@pytest.mark.slow
def test_importing_the_package_loads_no_library_and_no_other_module_of_it() -> None:
    code = "import sys, headrace; print(headrace.__version__, *sorted(sys.modules))"

    version, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()

    assert version == headrace.__version__
    assert [name for name in modules if name.startswith("headrace")] == ["headrace"]
    assert not {name.partition(".")[0] for name in modules} & {*HEAVY}


@pytest.mark.slow
def test_a_declaration_loads_polars_and_neither_arrow_nor_feast() -> None:
    code = "import sys; from headrace import Dataset, FeatureTable, Input, Source; print(*sorted(sys.modules))"

    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.split()

    assert {name.partition(".")[0] for name in modules} & {*HEAVY} == {"polars"}


def test_the_version_is_a_plain_string_that_the_build_reads() -> None:
    source = (REPOSITORY / "headrace/__init__.py").read_text("utf-8")

    assert re.search(rf'^__version__ = "{re.escape(headrace.__version__)}"$', source, re.MULTILINE)
