"""What the demo did, on a page: what arrived, what ran, what was rejected, what was released, what it is worth."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from infra.demo.screen import table
from infra.demo.story import Story

Json = Mapping[str, Any]
EXAMPLE_COLUMNS = 5


def of(story: Story, took: Mapping[str, float], home: Path) -> RenderableType:
    """The page."""
    workspace = home / "workspace"
    parts = (
        _lines("What arrived", story.arrived),
        _stages(story),
        _lines("Rejected, and why", [*_rejected(story, workspace)] or ["nothing"]),
        _lines("Released", [*_releases(story)]),
        _lines("Online", [*_online(story)]),
        _lines("Labels", [*_labels(story)]),
        _lines("Model: will it leave 15 minutes late?", [*_metrics(story.metrics)]),
        _lines("Look again", _where(home)),
        _times(took),
    )
    return Group(Rule("Summary", align="left", style="cyan"), *(line for part in parts for line in (part, "")))


def _lines(title: str, lines: list[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Text(f"  {line}") for line in lines))


def _stages(story: Story) -> Table:
    """Partitions computed (or read) by each refresh, and those carried over by the last one."""
    runs = list(story.refreshes.values())
    last = [*_partitions(runs[-1])]
    counts = [{name: computed for name, computed, _, _, _ in _partitions(run)} for run in runs]
    rows = [
        (name, *(str(count.get(name, 0)) for count in counts), str(kept), str(gone), rows)
        for name, _, kept, gone, rows in last
    ]
    columns = {"table": "left", **dict.fromkeys(story.refreshes, "right"), "carried over": "right", "gone": "right"}
    return table("What ran: partitions computed by each refresh", {**columns, "rows": "right"}, rows)


def _partitions(run: Json) -> Iterator[tuple[str, int, int, int, str]]:
    """Table, partitions computed, carried over and gone, rows; in the order of the flow."""
    for item in run["ingest"]["ingested"]:
        yield item["table"], item["read"], item["listed"] - item["read"], len(item["deleted"]), ""
    for stage in (*run["validate"]["stages"], *run["transform"]["stages"]):
        rows = f"{stage['totals']['rows']:,}"
        yield stage["table"], len(stage["built"]), stage["kept"], len(stage["gone"]), rows


def _rejected(story: Story, workspace: Path) -> Iterator[str]:
    for stage in [*story.refreshes.values()][-1]["validate"]["stages"]:
        folder = workspace / "data" / stage["table"].replace("validated/", "rejected/", 1)
        for check, rows in stage["checks"].items():
            share = f"{rows:,} of {stage['totals']['rows_in']:,} rows"
            yield f"{stage['table']}: {share} by `{check}`{_example(folder, check)}"


def _example(folder: Path, check: str) -> str:
    """One row that failed the check, as it is kept."""
    for file in sorted(folder.glob("*.parquet")):
        rows = pl.read_parquet(file)
        named = [name for name in rows.columns if name in re.findall(r"\w+", check)]
        failed = rows.filter(pl.col("checks").list.contains(check))
        if failed.height:
            shown = {name: failed[name][0] for name in dict.fromkeys([*_first(rows), *named])}
            return ", for example " + ", ".join(f"{name} {value}" for name, value in shown.items())
    return ""


def _first(rows: pl.DataFrame) -> list[str]:
    return [name for name in rows.columns if name not in ("row", "checks")][:EXAMPLE_COLUMNS]


def _releases(story: Story) -> Iterator[str]:
    titles = {title: run["version"] for title, run in story.refreshes.items()}
    for title, made in {**titles, "with the labels": story.labels["version"]}.items():
        changes = [f"{name} {_change(change)}" for name, change in made["differences"].items()]
        pushed = f"{made['pushed']['objects']} objects, {made['pushed']['size']:,} bytes pushed and read back"
        yield f"{made['name']} ({title}): {pushed}"
        yield f"    {'; '.join(changes) or 'no table changed'}"


def _change(change: Json) -> str:
    return f"+{len(change['added'])} ~{len(change['changed'])} -{len(change['removed'])}"


def _online(story: Story) -> Iterator[str]:
    for title, run in story.refreshes.items():
        found = run["publish"]
        written, deleted, kept = (
            sum(load[name] for load in found["loads"].values()) for name in ("written", "deleted", "kept")
        )
        keys = sum(proof["keys"] for proof in found["proofs"])
        yield (
            f"{found['release'] or title}: {written:,} values written, {deleted:,} deleted, {kept:,} right already;"
            f" {keys:,} keys read back and equal"
        )


def _labels(story: Story) -> Iterator[str]:
    sent, collected = story.labels["send"], story.labels["collect"]
    yield f"{sent['sent']} questions sent, all answered by a simulated annotator (an account of its own)"
    skipped = collected["events"].get("skipped", 0)
    yield f"{collected['labels']} labels, {skipped} skipped, {collected['rejected']} set aside"


def _metrics(metrics: Json) -> Iterator[str]:
    for name, value in metrics.items():
        yield f"{name}: {json.dumps(value)}"


def _where(home: Path) -> list[str]:
    shown = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    workspace = shown / "workspace"
    return [
        f"make up HOME_DIR={shown}       the same stack with all of this in it; prints pages and passwords",
        f"cd {workspace} && git log    releases are tags; `dvc metrics show`, `headrace status flights`",
        f"{workspace}/data     the tables, a manifest.json with each",
        f"{shown}/logs               one log per server; tasks in airflow/",
    ]


def _times(took: Mapping[str, float]) -> Table:
    rows = [(title, f"{seconds:.1f} s") for title, seconds in took.items()]
    return table("Time", {"chapter": "left", "took": "right"}, rows)
