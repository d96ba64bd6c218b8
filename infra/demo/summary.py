"""What the demo did, on a page: what arrived, what ran, what was rejected, what was released, what it is worth."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from headrace.validate.names import FAILED_CHECKS, ROW
from infra.demo.scenario import Story
from infra.demo.screen import table
from infra.demo.simulated_annotators import ERROR_RATES

Json = Mapping[str, Any]


def of(story: Story, took: Mapping[str, float], home: Path) -> RenderableType:
    """The page."""
    shown = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    parts = (
        _lines("What arrived", story.arrived),
        _stages(story),
        _lines("Rejected, and why (the rows are kept)", [*_rejected(story, home / "workspace")] or ["nothing"]),
        _releases(story),
        _lines("Online, and proved", [*_online(story)]),
        _lines("Labels", [*_labels(story)]),
        _model(story.metrics),
        _lines("What the assets told", [*_events(story)]),
        _times(took),
        _where(shown),
    )
    return Group(Rule("Summary", align="left", style="cyan"), *(line for part in parts for line in (part, "")))


def _lines(title: str, lines: list[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))


def _stages(story: Story) -> RenderableType:
    """Partitions read or computed by each refresh, and those carried over by the last one."""
    runs = list(story.refreshes.values())
    counts = [{name: computed for name, computed, *_ in _partitions(run)} for run in runs]
    rows = [
        (name, *(str(count.get(name, 0)) for count in counts), str(kept), str(gone), total)
        for name, _, kept, gone, total in _partitions(runs[-1])
    ]
    refreshes = [f"refresh {number}" for number in range(1, len(runs) + 1)]
    columns = ("table", *refreshes, "carried over", "gone", "rows")
    return table("What ran: partitions read or computed", columns, rows)


def _partitions(run: Json) -> Iterator[tuple[str, int, int, int, str]]:
    """Table, partitions computed, carried over and gone, rows; in the order of the flow."""
    for item in run["ingest"]["ingested"]:
        yield _short(item["table"]), item["read"], item["listed"] - item["read"], len(item["deleted"]), ""
    for stage in (*run["validate"]["stages"], *run["transform"]["stages"]):
        rows = f"{stage['totals']['rows']:,}"
        yield _short(stage["table"]), len(stage["built"]), stage["kept"], len(stage["gone"]), rows


def _short(name: str) -> str:
    """A table without its dataset: there is only one here."""
    return name.replace("/flights/", " ", 1)


def _rejected(story: Story, workspace: Path) -> Iterator[str]:
    for stage in [*story.refreshes.values()][-1]["validate"]["stages"]:
        name = stage["table"].replace("validated/", "rejected/", 1)
        for check, rows in stage["checks"].items():
            example = _example(workspace / "data" / name, check)
            yield f"{_short(name)}: {rows:,} of {stage['totals']['rows_in']:,} by {check}{example}"


def _example(folder: Path, check: str) -> str:
    """One row that failed the check, as it is kept: its first column, and those that the check names."""
    for file in sorted(folder.glob("*.parquet")):
        failed = pl.read_parquet(file).filter(pl.col(FAILED_CHECKS).list.contains(check))
        if failed.height:
            data = [name for name in failed.columns if name not in (ROW, FAILED_CHECKS)]
            named = [name for name in data if re.search(rf"(?<![^|_]){name}(?![^|_])", check)]
            return f" ({', '.join(f'{name} {failed[name][0]}' for name in dict.fromkeys([data[0], *named]))})"
    return ""


def _releases(story: Story) -> RenderableType:
    """Partitions of each table that a release added, changed and removed."""
    made = [run["release"] for run in (*story.refreshes.values(), story.labels)]
    changed = {name for release in made for name in release["differences"]}
    rows = [
        (_short(name), *(_change(release["differences"].get(name)) for release in made))
        for name in sorted(changed, key=_place)
    ]
    sent = ("bytes sent and read back", *(f"{release['pushed']['size']:,}" for release in made))
    columns = ("table", *(release["name"] for release in made))
    return table("Released: partitions added (+), changed (~), removed (-)", columns, [*rows, sent])


def _place(name: str) -> tuple[int, str]:
    """Tables in the order of the flow."""
    states = ("raw", "validated", "rejected", "features", "annotations", "labels")
    return states.index(name.split("/", maxsplit=1)[0]), name


def _change(change: Json | None) -> str:
    counts = {"+": change["added"], "~": change["changed"], "-": change["removed"]} if change else {}
    return " ".join(f"{sign}{len(names)}" for sign, names in counts.items() if names)


def _online(story: Story) -> Iterator[str]:
    for run in story.refreshes.values():
        found = run["publish"]
        written, deleted, kept = (
            sum(load[name] for load in found["loads"].values()) for name in ("written", "deleted", "kept")
        )
        keys = sum(proof["compared"] for proof in found["proofs"])
        loaded = f"{written:,} keys written, {deleted:,} deleted, {kept:,} as they were"
        yield f"{found['release']} on side {found['side']}: {loaded}; {keys:,} read back and equal to the release"


def _labels(story: Story) -> Iterator[str]:
    sent, collected = story.labels["send"], story.labels["collect_again"]
    rates = ", ".join(f"{name} wrong {rate:.0%}" for name, rate in ERROR_RATES.items())
    yield f"{sent['sent']} questions about flights; answered by three simulated annotators ({rates}) with own accounts"
    skipped = story.labels["collect"]["events"].get("skipped", 0)
    yield f"{collected['labels']} labels, {skipped} skipped, {collected['rejected']} set aside"
    for name, found in story.quality.items():
        gold = f", {found['right']:.1%} right on {found['gold']} gold items" if found["gold"] else ""
        agreement = f"{found['answers']} answers to {found['items']} items, alpha {found['alpha']:.2f}"
        yield f"{name}: {agreement}; {found['again']} sent back, {found['undecided']} undecided{gold}"
        ways = ", ".join(f"{way} {right:.1%}" for way, right in found["ways"].items() if right is not None)
        doubts = f"; {len(found['doubtful'])} labels to look at again" if found["doubtful"] else ""
        on_gold = f"; on gold {ways}" if ways else ""
        yield f"{name}: labels {found['truth']:.1%} right against the hidden truth{on_gold}{doubts}"


def _model(metrics: Json) -> RenderableType:
    """The model against predicting the base rate for every flight."""
    model, base, size = metrics["model"], metrics["base_rate"], metrics["rows"]
    rows = [(name.replace("_", " "), f"{model[name]:.4f}", f"{base[name]:.4f}") for name in sorted(model, key=_rank)]
    trained = f"trained on {size['train']:,} flights, tested on {size['test']:,} from {metrics['first_test_day']} on"
    title = f"Will it leave 15 minutes late? {metrics['release']}: {trained}"
    verdict = f"{metrics['gain']['log_loss_share']:.1%} less log loss than predicting the base rate"
    return Group(table(title, ("score", "model", "base rate"), rows), Text(f"  {verdict}", style="green"))


def _rank(score: str) -> tuple[bool, str]:
    return score != "log_loss", score


def _events(story: Story) -> Iterator[str]:
    told: dict[str, list[str]] = {}
    for event in story.events:
        told.setdefault(event["name"], []).append(event["extra"].get("name") or event["extra"]["release"])
    for asset, releases in told.items():
        yield f"{asset}: {', '.join(releases)}"


def _times(took: Mapping[str, float]) -> RenderableType:
    rows = [(title, f"{seconds:.1f} s") for title, seconds in took.items()]
    return table("Time", ("chapter", "took"), rows)


def _where(home: Path) -> RenderableType:
    places = {
        f"make up HOME_DIR={home}": "the same servers with all of this in them, and the way in",
        f"cd {home}/workspace": "then: git log, dvc metrics show, headrace status flights",
        f"{home}/workspace/data": "the tables, a manifest.json with each",
        f"{home}/logs": "one log per server; those of the tasks in airflow/",
    }
    return _lines("Look again", [line for place, what in places.items() for line in (place, f"  {what}")])
