"""What a declaration says for people reaches the DAGs, without loading it."""

# ruff: noqa: PLC0415  Airflow is imported when its home is set, which is where it writes

from pathlib import Path

import pytest

DECLARATION = """
from headrace.dataset import Dataset

TEAM = "shop@example.com"
DATASET = Dataset(
    description="Orders of the shop, "
    "a row each.",
    owner=TEAM,
    schedule="30 5 * * MON-FRI",
    tags={"licence": "internal"},
    sources=(undefined_here,),
)
"""


@pytest.fixture(autouse=True)
def _airflow_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path_factory.getbasetemp() / "airflow"))


def declare(project: Path, text: str) -> Path:
    file = project / "pipelines" / "orders" / "__init__.py"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    return project


def test_owner_description_schedule_and_tags_are_those_of_the_declaration(tmp_path: Path) -> None:
    from headrace.airflow.dataset_facts import read_facts
    from headrace.airflow.labels import label_dag
    from headrace.airflow.refresh import refresh_dag

    facts = read_facts(declare(tmp_path, DECLARATION), "orders")
    tables = {"validate": ["orders"], "transform": [], "label": []}
    refresh, labels = refresh_dag("orders", tables, None, facts), label_dag("orders", "fraud", facts)

    for dag in (refresh, labels):
        assert {task.owner for task in dag.tasks} == {"shop@example.com"}
        assert dag.owner_links == {"shop@example.com": "mailto:shop@example.com"}
        assert dag.description == "Orders of the shop, a row each."
        assert (dag.doc_md or "").startswith("Orders of the shop, a row each.")
        assert {"orders", "licence: internal"} <= dag.tags
    assert refresh.timetable.expression == "30 5 * * MON-FRI"  # type: ignore[union-attr]


def test_without_a_schedule_a_dataset_is_refreshed_by_hand_only(tmp_path: Path) -> None:
    from headrace.airflow.dataset_facts import read_facts

    assert read_facts(declare(tmp_path, 'DATASET = Dataset(schedule="")'), "orders").timetable() is None


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ('schedule="every day"', "'every day' is not a cron expression"),
        ("owner=TEAM", "expected a literal, found a name that this file does not assign once"),
        ("owner=who()", "expected a literal, found `who()`"),
        ("owner=7", "expected a str, found int"),
        ('owner=""', "it is empty"),
        ('tags="a"', "expected a dict, found str"),
    ],
)
def test_what_cannot_be_shown_keeps_its_default_and_the_documentation_says_why(
    tmp_path: Path, argument: str, reason: str
) -> None:
    from headrace.airflow.dataset_facts import DatasetFacts, read_facts

    facts = read_facts(declare(tmp_path, f"DATASET = Dataset({argument})"), "orders")

    name = argument.partition("=")[0]
    assert getattr(facts, name) == getattr(DatasetFacts(), name)
    assert (
        f"Airflow does not show the `{name}` that pipelines/orders/__init__.py:1 declares: {reason}"
        in facts.introduction()
    )


def test_a_declaration_that_cannot_be_parsed_has_the_defaults(tmp_path: Path) -> None:
    from headrace.airflow.dataset_facts import DatasetFacts, read_facts

    assert read_facts(declare(tmp_path, "DATASET = ("), "orders") == DatasetFacts()
