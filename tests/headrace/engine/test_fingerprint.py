"""What decides a stage's bytes is in its cache keys: code, parameters, libraries and the result version.

That a key changes is shown on whole runs: a plan that compared words alone would find the same.
"""

from dataclasses import replace
from pathlib import Path

import minimal_dataset
import pytest
from minimal_dataset import day_names, raw_days, run_all_stages, write_raw_partitions

from headrace.engine import fingerprint as fingerprint_module
from headrace.engine.fingerprint import Fingerprint
from headrace.engine.run import plan_all
from headrace.project import graph
from headrace.storage.table_store import TableStore

ONE = Fingerprint({"pipelines/a.py": "1", "pipelines/b.py": "2"}, {"p": 1, "q": 2}, {"polars": "1", "numpy": "2"}, 3)


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, code={**ONE.code, "pipelines/b.py": "3"}),
        replace(ONE, code={"pipelines/a.py": "1", "pipelines/c.py": "2"}),
        replace(ONE, params={"p": 1, "q": 3}),
        replace(ONE, params={"p": 1}),
        replace(ONE, libraries={**ONE.libraries, "numpy": "3"}),
        replace(ONE, libraries={"polars": "1"}),
        replace(ONE, params={}, libraries={}),
        replace(ONE, result_version=4),
    ],
)
def test_each_part_of_a_fingerprint_is_in_its_key(other: Fingerprint) -> None:
    assert other.key != ONE.key


def test_the_order_of_its_parts_is_not() -> None:
    def turned(parts: dict[str, object]) -> dict[str, object]:
        return dict(reversed(parts.items()))

    other = Fingerprint(turned({**ONE.code}), turned({**ONE.params}), turned({**ONE.libraries}), 3)  # type: ignore[arg-type]

    assert other.key == ONE.key
    assert len(ONE.key) == 32


def test_the_key_of_an_earlier_result_version_can_still_be_told() -> None:
    assert ONE.key_at(3) == ONE.key
    assert ONE.key_at(2) == replace(ONE, result_version=2).key != ONE.key


@pytest.fixture
def table_store(tmp_path: Path) -> TableStore:
    """Three days, all computed."""
    table_store = minimal_dataset.create_table_store(tmp_path)
    write_raw_partitions(table_store, raw_days(1, 2, 3))
    run_all_stages(table_store)
    return table_store


def test_another_version_of_a_library_makes_every_partition_stale_and_the_old_one_none(
    table_store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = graph.dataset_stages(minimal_dataset.DATASET)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint_module, "library_version", lambda _name: "0.0")
        plans = plan_all(stages, table_store)

    assert [[item.partition for item in plan.stale] for plan in plans] == [day_names(1, 2, 3)] * len(stages)
    assert "library changed: polars" in plans[0].stale[0].reasons
    assert all(plan.is_empty for plan in plan_all(stages, table_store))
