"""A change that only renames tables is recognized; any other change of the code is not taken for one."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import pytest
from workspaces import git

from headrace.engine.code_hash import read_code
from headrace.engine.fingerprint import Fingerprint
from headrace.maintenance.renamed_code import Renaming, find_difference
from headrace.storage.manifest import Manifest

FOLDER = "pipelines/flights/features"
DELAYS = dedent('''
    """How late."""
    from headrace.dataset import FeatureTable, Input
    from pipelines.flights.windows import hourly


    def kernel(*, day, flights):
        """The rows of a day."""
        return hourly(flights, "delays", day)


    TABLE = FeatureTable(name="delays", inputs={"flights": Input("validated/flights", lookback=9)}, transform=kernel)
''')
SAME = {"delays": "punctuality", "validated/flights": "validated/departures"}
TABLES = {
    "features/flights/punctuality": "features/flights/delays",
    "validated/flights/departures": "validated/flights/flights",
}
RENAMING = Renaming("flights", "flights", TABLES)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    return tmp_path


def write(root: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Write files; path → hash, as a fingerprint has them."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return {path: read_code(text.encode(), Path(path))[0] for path, text in files.items()}


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", "Code")


def difference(root: Path, code: Mapping[str, str], now: Mapping[str, str], renaming: Renaming = RENAMING) -> str:
    old = Manifest("features/flights/delays", code=code, params={"flights.late_min": 15}, result_version=2)
    new = Fingerprint(now, {f"{renaming.new_dataset}.late_min": 15}, {}, 2)
    return find_difference(old, new, renaming, root, [])


def test_new_names_in_a_new_file_change_nothing_whatever_its_layout(root: Path) -> None:
    code = write(root, {f"{FOLDER}/delays.py": DELAYS})
    commit(root)
    (root / FOLDER / "delays.py").unlink()
    text = DELAYS.replace('name="delays"', 'name="punctuality"').replace("validated/flights", "validated/departures")
    text = text.replace("FeatureTable(name", "FeatureTable(\n    name").replace("How late.", "How punctual.")

    now = write(root, {f"{FOLDER}/punctuality.py": text})
    assert difference(root, code, now) == ""
    commit(root)
    assert difference(root, code, now) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    {
        "a column": ('"delays", day', '"punctuality", day'),
        "a lookback": ("lookback=9", "lookback=8"),
        "a variable": ("TABLE =", "PUNCTUALITY ="),
        "a statement": ("return hourly", "flights = flights.head()\n    return hourly"),
        "an import": ("flights.windows", "flights.spans"),
    }.values(),
)
def test_any_other_change_is_told(root: Path, old: str, new: str) -> None:
    code = write(root, {f"{FOLDER}/delays.py": DELAYS})
    commit(root)

    text = DELAYS.replace('name="delays"', 'name="punctuality"').replace(old, new)
    now = write(root, {f"{FOLDER}/delays.py": text})

    assert difference(root, code, now) == f"changes of {FOLDER}/delays.py"


def test_a_table_that_is_renamed_the_other_way_round_is_told(root: Path) -> None:
    code = write(root, {f"{FOLDER}/delays.py": DELAYS.replace("validated/flights", "validated/departures")})
    commit(root)

    now = write(root, {f"{FOLDER}/delays.py": DELAYS})

    assert difference(root, code, now).startswith("changes of")


def test_a_text_that_git_does_not_have_is_not_taken_for_the_same(root: Path) -> None:
    commit(root)
    code = {f"{FOLDER}/delays.py": read_code(DELAYS.encode(), Path("delays.py"))[0]}

    now = write(root, {f"{FOLDER}/delays.py": DELAYS.replace('"delays"', '"punctuality"', 1)})

    assert difference(root, code, now) == f"changes of {FOLDER}/delays.py"


def test_another_file_parameter_library_or_engine_is_told(root: Path) -> None:
    code = write(root, {f"{FOLDER}/delays.py": DELAYS})
    commit(root)
    old = Manifest("features/flights/delays", code=code, params={"flights.late_min": 15}, result_version=2)

    def told(**changes: object) -> str:
        parts = {"code": code, "params": old.params, "libraries": {}, "result_version": 2, **changes}
        return find_difference(old, Fingerprint(**parts), RENAMING, root, [])  # type: ignore[arg-type]

    assert told() == ""
    assert told(code={**code, "pipelines/flights/windows.py": "1"}) == "other files: pipelines/flights/windows.py"
    assert told(params={"flights.late_min": 30}) == "other values in params.yaml"
    assert told(libraries={"numpy": "2"}) == "other versions of libraries"
    assert told(result_version=3) == "another version of the engine"


def test_a_dataset_that_moved_with_its_folder_and_imports_is_the_same(root: Path) -> None:
    windows = "def hourly(rows, key, day):\n    return rows\n"
    code = write(root, {f"{FOLDER}/delays.py": DELAYS, "pipelines/flights/windows.py": windows})
    commit(root)
    git(root, "mv", "pipelines/flights", "pipelines/departures")
    text = DELAYS.replace("pipelines.flights.windows", "pipelines.departures.windows")

    moved = {"pipelines/departures/features/delays.py": text, "pipelines/departures/windows.py": windows}
    renaming = Renaming("flights", "departures", {"features/departures/delays": "features/flights/delays"})

    assert difference(root, code, write(root, moved), renaming) == ""
