"""The summary of the demo: what arrived, what ran, what was rejected, what was released, how good the model is."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.text import Text

from infra.demo.demo_console import titled_table
from infra.demo.scenario import ScenarioResult
from infra.demo.simulated_annotators import ERROR_RATES

Json = Mapping[str, Any]


def render_summary(result: ScenarioResult, durations_s: Mapping[str, float], home: Path) -> RenderableType:
    """The whole summary."""
    shown_home = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    parts = (
        _lines("What arrived", result.arrivals),
        _stages(result),
        _lines("Rejected, and why (the rows are kept)", result.rejected or ["nothing"]),
        _releases(result),
        _lines("Online, and verified", [*_online(result)]),
        _lines("Labels", [*_labels(result)]),
        _model(result.metrics),
        _lines("Asset events in Airflow", [*_events(result)]),
        _durations(durations_s),
        _where_to_look(shown_home),
    )
    return Group(Rule("Summary", align="left", style="cyan"), *(line for part in parts for line in (part, "")))


def _lines(title: str, lines: list[str]) -> RenderableType:
    return Group(Text(title, style="bold"), *(Padding(Text(line), (0, 0, 0, 2)) for line in lines))


def _stages(result: ScenarioResult) -> RenderableType:
    """Partitions read or computed by each refresh, and those that the last one reused and removed."""
    runs = list(result.refreshes.values())
    counts = [{name: computed for name, computed, *_ in _partitions(run)} for run in runs]
    rows = [
        (name, *(str(count.get(name, 0)) for count in counts), str(reused), str(removed), total)
        for name, _, reused, removed, total in _partitions(runs[-1])
    ]
    refreshes = [f"refresh {number}" for number in range(1, len(runs) + 1)]
    columns = ("table", *refreshes, "reused", "removed", "rows")
    return titled_table("What ran: partitions read or computed", columns, rows)


def _partitions(run: Json) -> Iterator[tuple[str, int, int, int, str]]:
    """Table, partitions computed, reused and removed, rows; in the order of the flow."""
    for item in run["ingest"]["ingested"]:
        yield _short(item["table"]), item["read"], item["listed"] - item["read"], len(item["deleted"]), ""
    for stage in (*run["validate"]["stages"], *run["transform"]["stages"]):
        rows = f"{stage['totals']['rows']:,}"
        yield _short(stage["table"]), len(stage["computed"]), stage["unchanged"], len(stage["removed"]), rows


def _short(name: str) -> str:
    """A table's name without its dataset: the summary is about one."""
    return name.replace("/flights/", " ", 1)


def _releases(result: ScenarioResult) -> RenderableType:
    """Partitions of each table that a release added, changed and removed."""
    releases = [run["release"] for run in (*result.refreshes.values(), result.labels)]
    changed = {name for release in releases for name in release["changes"]}
    rows = [
        (_short(name), *(_change(release["changes"].get(name)) for release in releases))
        for name in sorted(changed, key=_flow_order)
    ]
    columns = ("table", *(release["name"] for release in releases))
    return titled_table("Released: partitions added (+), changed (~), removed (-)", columns, rows)


def _flow_order(name: str) -> tuple[int, str]:
    states = ("raw", "validated", "rejected", "features", "annotations", "labels")
    return states.index(name.split("/", maxsplit=1)[0]), name


def _change(change: Json | None) -> str:
    counts = {"+": change["added"], "~": change["changed"], "-": change["removed"]} if change else {}
    return " ".join(f"{sign}{len(names)}" for sign, names in counts.items() if names)


def _online(result: ScenarioResult) -> Iterator[str]:
    for run in result.refreshes.values():
        published = run["publish"]
        written, deleted, unchanged = (
            sum(load[name] for load in published["loads"].values()) for name in ("written", "deleted", "unchanged")
        )
        keys = sum(view["compared_keys"] for view in published["verifications"])
        loaded = f"{written:,} keys written, {deleted:,} deleted, {unchanged:,} unchanged"
        served = f"{published['release']} in slot {published['slot']}"
        yield f"{served}: {loaded}; {keys:,} read back and equal to the release"


def _labels(result: ScenarioResult) -> Iterator[str]:
    sent, collected = result.labels["send"], result.labels["collect_again"]
    rates = ", ".join(f"{name} wrong {rate:.0%}" for name, rate in ERROR_RATES.items())
    yield f"{sent['sent']} questions about flights; answered by three simulated annotators ({rates}) with own accounts"
    skipped = result.labels["collect"]["events"].get("skipped", 0)
    yield f"{collected['labels']} labels, {skipped} skipped, {collected['rejected']} rejected"
    for name, quality in result.quality.items():
        gold_items = quality["gold_items"]
        gold = f", {quality['gold_accuracy']:.1%} right on {gold_items} gold items" if gold_items else ""
        alpha = f"alpha {quality['krippendorff_alpha']:.2f}"
        agreement = f"{quality['answers']} answers to {quality['items']} items, {alpha}"
        yield f"{name}: {agreement}; {quality['requested']} sent back, {quality['undecided']} undecided{gold}"
        by_consensus = ((one, share) for one, share in quality["aggregators"].items() if share is not None)
        shares = ", ".join(f"{one} {share:.1%}" for one, share in by_consensus)
        issues = f"; {len(quality['label_issues'])} labels to look at again" if quality["label_issues"] else ""
        on_gold = f"; on gold {shares}" if shares else ""
        yield f"{name}: labels {quality['accuracy']:.1%} right against the hidden truth{on_gold}{issues}"


def _model(metrics: Json) -> RenderableType:
    """The model against predicting the base rate for every flight."""
    model, base, size = metrics["model"], metrics["base_rate"], metrics["rows"]
    scores = sorted(model, key=lambda score: (score != "log_loss", score))
    rows = [(score.replace("_", " "), f"{model[score]:.4f}", f"{base[score]:.4f}") for score in scores]
    trained = f"trained on {size['train']:,} flights, tested on {size['test']:,} from {metrics['first_test_day']} on"
    title = f"Will it leave 15 minutes late? {metrics['release']}: {trained}"
    gain = f"{metrics['gain']['log_loss_share']:.1%} less log loss than predicting the base rate"
    return Group(titled_table(title, ("score", "model", "base rate"), rows), Text(f"  {gain}", style="green"))


def _events(result: ScenarioResult) -> Iterator[str]:
    releases: dict[str, list[str]] = {}
    for event in result.events:
        extra = event["extra"]
        release = extra.get("name") or extra["release"]  # of `release`; of `publish` and `runs exec`
        releases.setdefault(event["name"], []).append(release if isinstance(release, str) else release["name"])
    for asset, names in releases.items():
        yield f"{asset}: {', '.join(names)}"


def _durations(durations_s: Mapping[str, float]) -> RenderableType:
    rows = [(title, f"{seconds:.1f} s") for title, seconds in durations_s.items()]
    return titled_table("Time", ("section", "took"), rows)


def _where_to_look(home: Path) -> RenderableType:
    places = {
        f"make up HOME_DIR={home}": "the same servers with all of this in them, and how to log in",
        f"cd {home}/workspace": "then: git log, dvc metrics show, headrace status flights; dvc pull for the tables",
        f"{home}/logs": "one log per server; those of the tasks are in airflow/",
    }
    return _lines("Look again", [line for place, what in places.items() for line in (place, f"  {what}")])
