"""Declarations of the worked example are renamed and removed, and the commands do the rest, as operations.md says."""

import json

import pytest
from workspaces import Workspace, git

pytestmark = [pytest.mark.slow, pytest.mark.slow_lane]
OLD, NEW = "origin_weather", "weather_at_origin"
FOLDER = "pipelines/flights"


def rename_declaration(workspace: Workspace) -> None:
    """Another name, in a file of that name; the training stage reads it."""
    git(workspace.root, "mv", f"{FOLDER}/features/{OLD}.py", f"{FOLDER}/features/{NEW}.py")
    workspace.edit(f"{FOLDER}/features/{NEW}.py", f'name="{OLD}"', f'name="{NEW}"')
    declaration = workspace.root / FOLDER / "__init__.py"
    declaration.write_text(declaration.read_text().replace(OLD, NEW))
    workspace.edit("dvc.yaml", f"data/features/flights/{OLD}/_manifest", f"data/features/flights/{NEW}/_manifest")


def test_a_renamed_feature_table_is_carried_over_and_released(released: Workspace) -> None:
    rename_declaration(released)
    before = released.table_store.manifest(f"features/flights/{OLD}")

    checked = released.command("headrace", "check", "flights")
    shown = released.command("headrace", "rename", "flights", OLD, NEW)
    done = json.loads(released.command("headrace", "rename", "flights", OLD, NEW, "--no-dry-run", "--json"))
    plan = released.command("headrace", "plan", "flights", "--offline")

    assert f"nothing declares features/flights/{OLD}, on record here" in checked
    assert f"features/flights/{OLD}: would be renamed to features/flights/{NEW}" in shown
    assert "Nothing was renamed; `--no-dry-run` renames them." in shown
    assert (done["stale"], done["dry_run"], done["kept_by"]) == ({}, False, "flights/1")
    assert "stale" not in plan
    assert released.table_store.manifest(f"features/flights/{NEW}").md5s == before.md5s
    git(released.root, "add", "--all")
    released.publish_code("Rename a feature table")
    assert "flights/2 released" in released.command("headrace", "release", "flights")
    assert f"flights-transform-{OLD}" not in (released.root / "dvc.yaml").read_text()
    assert released.command("headrace", "dvc-sync", "--check")
    other = released.clone("other")
    assert "stale" not in other.command("headrace", "plan", "flights", "--offline")


def test_a_removed_feature_table_is_named_and_dropped(released: Workspace) -> None:
    declaration = released.root / FOLDER / "__init__.py"
    declaration.write_text(
        declaration.read_text().replace(f"{OLD}.TABLE, ", "").replace(f"origin_traffic, {OLD}", "origin_traffic")
    )

    refused = released.command("headrace", "drop", "flights", OLD, fails=True)
    released.edit("dvc.yaml", f"    - data/features/flights/{OLD}/_manifest/head.json\n", "")
    status = json.loads(released.command("headrace", "status", "flights", "--json"))
    done = released.command("headrace", "drop", "flights", OLD, "--reason", "a test", "--no-dry-run")
    again = released.command("headrace", "drop", "flights", OLD, "--no-dry-run")

    assert "the stage flights-train reads" in refused
    assert f"`headrace drop flights {OLD}`" in status["undeclared"][f"features/flights/{OLD}"]
    assert f"features/flights/{OLD}: 3 partitions" in done
    assert 'flights/1 and the releases before it keep what they have: `headrace.open("flights"' in done
    assert f"features/flights/{OLD}: 0 partitions" in again
    git(released.root, "add", "--all")
    released.publish_code("Drop a feature table")
    assert "flights/2 released" in released.command("headrace", "release", "flights")
    assert json.loads(released.command("headrace", "status", "flights", "--json"))["undeclared"] == {}
