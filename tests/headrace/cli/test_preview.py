"""`headrace preview`: one partition as text and as JSON, also in a clone that has no data yet."""

import json
from typing import Any

from raw_data import days
from workspaces import Workspace, git

DAY = days(2, 2)[0]
CARRIERS = "features/flights/carrier_delays"


def as_json(workspace: Workspace, *words: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(workspace.command("headrace", "preview", "flights", *words, "--json"))
    return content


def test_an_edited_parameter_is_previewed_with_the_columns_that_it_changes(released: Workspace) -> None:
    words = ("carrier_delays", "--partition", DAY, "--params", "late_min=60", "--rows", "3")

    text = released.command("headrace", "preview", "flights", *words)
    content = as_json(released, *words)

    assert text.startswith(f"{CARRIERS} {DAY}: computed in ")
    assert "a run would compute it: parameter changed: flights.late_min" in text
    table = content["tables"][CARRIERS]
    difference = table["difference"]
    assert f"difference: 0 rows added, {difference['changed']:,} changed, 0 removed" in text
    assert {name.rpartition("_")[0] for name in difference["columns"]} == {"late_share"}
    assert f"changed columns: {', '.join(f'{n} ({c:,})' for n, c in difference['columns'].items())}" in text
    assert difference["key"] == ["carrier", "event_time"]
    assert len(table["first_rows"]) == len(difference["changed_rows"]) == 3
    assert table["schema"]["late_share_3h"] == "Float64"
    assert git(released.root, "status", "--porcelain") == ""


def test_a_clone_without_data_fetches_what_the_partition_is_computed_from(released: Workspace) -> None:
    reader = released.clone("reader")

    content = as_json(reader, "validated/flights", "--partition", DAY)

    assert (content["reasons"], content["refused"]) == ([], None)
    assert content["tables"]["validated/flights/flights"]["difference"]["is_identical"]
    assert content["metadata"]["rows_in"] == 943
    assert not list((reader.root / "data").rglob("*.parquet"))
    assert git(reader.root, "status", "--porcelain") == ""


def test_an_unknown_partition_is_an_error_with_the_next_command(released: Workspace) -> None:
    done = released.command("headrace", "preview", "flights", "weather", "--partition", "2014-01-01", fails=True)

    assert "validated/flights/weather would have no partition 2014-01-01" in done
    assert "`headrace ingest flights` reads it" in done
